"""A transform in one file: a task recorded in metres, learned and acted out in centimetres."""

from __future__ import annotations

from dataclasses import dataclass, replace

from diffusion_policy.transforms.transform import Transform

FACTOR = 100


@dataclass(frozen=True)
class Centimetres(Transform):
    """Gives an observation and the action, both in metres, to the policy in centimetres."""

    key: str

    def spec(self, spec):
        unbounded = {self.key: replace(spec.obs[self.key], limits=None)}
        return replace(
            spec, obs={**spec.obs, **unbounded}, action=replace(spec.action, limits=None)
        )

    def forward(self, batch, spec):
        obs = {**batch["obs"], self.key: batch["obs"][self.key] * FACTOR}
        if "action" not in batch:
            return {**batch, "obs": obs}
        return {**batch, "obs": obs, "action": batch["action"] * FACTOR}

    def inverse(self, action, obs, spec):
        return action / FACTOR
