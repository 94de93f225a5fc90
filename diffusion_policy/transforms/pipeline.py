"""Transforms one after another, as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import hydra
import numpy as np

from diffusion_policy.spec.batch import Batch
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.transforms.transform import Obs, Transform
from diffusion_policy.util.config import plain
from diffusion_policy.util.errors import UserError


@dataclass(frozen=True)
class Pipeline:
    """Takes raw batches to the policy's side, and its actions back; see :meth:`of`.

    To act::

        seen = pipeline.observe(obs)
        action = pipeline.inverse(policy(seen[-1]), seen)

    Attributes:
        transforms: in the order of :meth:`forward`.
        specs: of the raw data, and after each transform.
    """

    transforms: tuple[Transform, ...]
    specs: tuple[TaskSpec, ...]

    @classmethod
    def of(
        cls, transforms: Iterable[Transform | Mapping[str, Any]] | None, spec: TaskSpec
    ) -> Pipeline:
        """The pipeline of a task.

        Args:
            transforms: ``task.transforms``; entries are transforms, or configs of them with a
                ``_target_``. None is none.
            spec: of the raw data.

        Raises:
            UserError: an entry is no transform, or does not fit what it receives.
        """
        built = tuple(_build(i, entry) for i, entry in enumerate(transforms or ()))
        specs = [spec]
        for transform in built:
            specs.append(transform.spec(specs[-1]))
        return cls(built, tuple(specs))

    @classmethod
    def of_task(cls, task: Mapping[str, Any]) -> Pipeline:
        """The pipeline of a config's ``task`` section; ``transforms`` may be missing.

        Raises:
            UserError: see :meth:`of` and :meth:`TaskSpec.parse`.
        """
        spec = TaskSpec.parse(plain(task["shape_meta"]), task.get("fps"), task.get("embodiment"))
        return cls.of(task.get("transforms"), spec)

    @property
    def raw_spec(self) -> TaskSpec:
        """What is recorded, observed by the robot and commanded to it."""
        return self.specs[0]

    @property
    def spec(self) -> TaskSpec:
        """What the policy sees and predicts."""
        return self.specs[-1]

    @property
    def reads_obs(self) -> bool:
        """Whether an action means something only together with the observation of its chunk."""
        return any(transform.reads_obs for transform in self.transforms)

    @property
    def chains_actions(self) -> bool:
        """Whether an action means something only together with the one of the step before it."""
        return any(transform.chains_actions for transform in self.transforms)

    def forward(self, batch: Batch) -> Batch:
        """The transformed batch, see :class:`Transform`."""
        for transform, spec in zip(self.transforms, self.specs, strict=False):
            batch = transform.forward(batch, spec)
        return batch

    def observe(self, obs: Obs) -> Sequence[Obs]:
        """Observations, to act on: raw, and after each transform. The last is for the policy."""
        seen = [obs]
        for transform, spec in zip(self.transforms, self.specs, strict=False):
            seen.append(transform.forward({"obs": seen[-1]}, spec)["obs"])
        return seen

    def inverse(self, action: np.ndarray, seen: Sequence[Obs]) -> np.ndarray:
        """Raw actions (B, Ta, Da) from the policy's.

        Args:
            action: (B, Ta, ...) from the current time step on.
            seen: what :meth:`observe` gave for the observations that the policy acted on.
        """
        stages = zip(self.transforms, seen, self.specs, strict=False)
        for transform, obs, spec in reversed(list(stages)):
            action = transform.inverse(action, obs, spec)
        return action


def _build(index: int, entry: Transform | Mapping[str, Any]) -> Transform:
    built: Any = entry
    if isinstance(entry, Mapping) and "_target_" in entry:
        built = hydra.utils.instantiate(entry, _convert_="all")
    if not isinstance(built, Transform):
        raise UserError(
            f"task.transforms[{index}] is {plain(built)!r}, which is no Transform; name one of "
            "diffusion_policy.transforms in its _target_"
        )
    return built
