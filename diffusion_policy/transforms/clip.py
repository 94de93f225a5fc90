"""Values kept within bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusion_policy.spec.batch import Batch
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.transforms.parts import find_part, map_key, map_part
from diffusion_policy.transforms.transform import Obs, Transform
from diffusion_policy.util.errors import UserError

Bounds = float | tuple[float, ...]


@dataclass(frozen=True)
class Clip(Transform):
    """Clips recorded values, and the policy's actions on their way out.

    Attributes:
        key: an observation, or ``action``.
        low: least value, or one for each number of the part; raw units.
        high: greatest value, likewise.
        part: of the vector; None where it has none, or one.
    """

    key: str
    low: Bounds
    high: Bounds
    part: str | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            bounds = getattr(self, name)
            if not isinstance(bounds, int | float):
                object.__setattr__(self, name, tuple(bounds))
        if not (np.asarray(self.low) <= np.asarray(self.high)).all():
            raise UserError(f"Clip of {self.key!r} has low {self.low} above high {self.high}")

    def spec(self, spec: TaskSpec) -> TaskSpec:
        part, _ = find_part(spec, self.key, self.part)
        for name in ("low", "high"):
            if np.size(getattr(self, name)) not in (1, part.size):
                raise UserError(
                    f"Clip.{name} of {self.key!r} is {getattr(self, name)}; use one number, or "
                    f"one for each of {part.size}"
                )
        return spec

    def forward(self, batch: Batch, spec: TaskSpec) -> Batch:
        return map_key(batch, self.key, lambda values: self._clip(values, spec))

    def inverse(self, action: np.ndarray, obs: Obs, spec: TaskSpec) -> np.ndarray:
        return self._clip(action, spec) if self.key == "action" else action

    def _clip(self, values: np.ndarray, spec: TaskSpec) -> np.ndarray:
        _, where = find_part(spec, self.key, self.part)
        return map_part(values, where, lambda numbers: np.clip(numbers, self.low, self.high))
