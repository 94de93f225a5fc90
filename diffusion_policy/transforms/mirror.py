"""The base of a task's mirror, if the task is the same in a mirror."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion_policy.spec.batch import Batch
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.transforms.transform import Obs, Transform


@dataclass(frozen=True)
class BaseMirror(Transform):
    """Maps observations and actions to those of the mirrored world; twice that is the identity.

    ``task.dataset.symmetry`` with ``mirrored: true`` trains on every sample twice, recorded and
    mirrored. In ``task.transforms`` the policy lives in the mirrored world.
    """

    @abstractmethod
    def __call__(self, key: str, values: Any) -> Any:
        """New values of an observation, or of ``action``: same shape and dtype.

        Args:
            key: name of the observation, or ``action``.
            values: (..., D), (..., C, H, W), or a list of str.

        Raises:
            UserError: nothing is known of ``key``.
        """

    def forward(self, batch: Batch, spec: TaskSpec) -> Batch:
        mirrored = {**batch, "obs": {key: self(key, value) for key, value in batch["obs"].items()}}
        if "action" in batch:
            mirrored["action"] = self("action", batch["action"])
        return mirrored

    def inverse(self, action: np.ndarray, obs: Obs, spec: TaskSpec) -> np.ndarray:
        return self("action", action)
