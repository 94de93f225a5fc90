"""Rotations that the policy sees, or predicts, in another representation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffusion_policy.spec.batch import Batch
from diffusion_policy.spec.task_spec import ROTATIONS, TaskSpec
from diffusion_policy.transforms.parts import find_part, map_key, map_part, with_part
from diffusion_policy.transforms.rotation import convert_rotation
from diffusion_policy.transforms.transform import Obs, Transform
from diffusion_policy.util.errors import UserError


@dataclass(frozen=True)
class RotationRepresentation(Transform):
    """Converts a rotation of an observation or of the action.

    Attributes:
        key: an observation, or ``action``.
        part: of it; None where the vector is one rotation. The part's ``representation`` in
            shape_meta tells how it is recorded.
        target: representation for the policy, see ``transforms/rotation.py``.
    """

    key: str
    part: str | None = None
    target: str = "rotation_6d"

    def spec(self, spec: TaskSpec) -> TaskSpec:
        source = find_part(spec, self.key, self.part)[0].representation
        for name, where in ((source, "the part"), (self.target, "RotationRepresentation.target")):
            if name not in ROTATIONS:
                raise UserError(
                    f"{where} of {self.key!r} is {name!r}, no representation of a rotation; "
                    f"use one of {', '.join(ROTATIONS)}"
                )
        return with_part(
            spec,
            self.key,
            self.part,
            size=ROTATIONS[self.target],
            representation=self.target,
            limits=None,
        )

    def forward(self, batch: Batch, spec: TaskSpec) -> Batch:
        part, where = find_part(spec, self.key, self.part)

        def convert(values: np.ndarray) -> np.ndarray:
            return convert_rotation(values, part.representation, self.target)

        return map_key(batch, self.key, lambda values: map_part(values, where, convert))

    def inverse(self, action: np.ndarray, obs: Obs, spec: TaskSpec) -> np.ndarray:
        if self.key != "action":
            return action
        part, where = find_part(spec, self.key, self.part)
        where = slice(where.start, where.start + ROTATIONS[self.target])
        return map_part(
            action, where, lambda values: convert_rotation(values, self.target, part.representation)
        )
