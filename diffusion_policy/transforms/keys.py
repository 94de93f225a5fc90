"""Which observations the policy sees, and under which names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from diffusion_policy.spec.batch import Batch
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.transforms.parts import find_field
from diffusion_policy.transforms.transform import Transform
from diffusion_policy.util.errors import UserError


@dataclass(frozen=True)
class Rename(Transform):
    """Gives observations other names.

    Attributes:
        names: by recorded name, the name for the policy.
    """

    names: Mapping[str, str]

    def spec(self, spec: TaskSpec) -> TaskSpec:
        for key in self.names:
            _require_observation(spec, key)
        renamed = {self.names.get(key, key): field for key, field in spec.obs.items()}
        if len(renamed) < len(spec.obs) or "action" in renamed:
            raise UserError(
                f"Rename.names gives a name that is taken: {dict(self.names)}; each observation "
                "needs a name of its own, other than action"
            )
        return replace(spec, obs=renamed)

    def forward(self, batch: Batch, spec: TaskSpec) -> Batch:
        renamed = {self.names.get(key, key): value for key, value in batch["obs"].items()}
        return {**batch, "obs": renamed}


@dataclass(frozen=True)
class SelectKeys(Transform):
    """Leaves out observations, such as those that only other transforms need.

    Attributes:
        keys: observations that the policy sees.
    """

    keys: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", tuple(self.keys))

    def spec(self, spec: TaskSpec) -> TaskSpec:
        for key in self.keys:
            _require_observation(spec, key)
        return replace(spec, obs={key: spec.obs[key] for key in self.keys})

    def forward(self, batch: Batch, spec: TaskSpec) -> Batch:
        obs = {key: batch["obs"][key] for key in self.keys if key in batch["obs"]}
        return {**batch, "obs": obs}


def _require_observation(spec: TaskSpec, key: str) -> None:
    if key == "action":
        raise UserError("a transform names the action where only observations can be named")
    find_field(spec, key)
