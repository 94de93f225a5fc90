"""The contract of a transform: what lies between recorded data and the policy, both ways."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from diffusion_policy.spec.batch import Batch
from diffusion_policy.spec.task_spec import TaskSpec

Obs = dict[str, Any]
"""Observations of B rows: ``{key: (B, To, *shape)}``, and a list of B str for a text."""


class Transform(ABC):
    """Changes what a policy sees, and undoes on its actions what it did to recorded ones.

    A subclass is a frozen dataclass: its fields are the settings that stand in ``task.transforms``.
    It computes in numpy, imports no torch, and writes into no array that it was given.

    ===============  ==============================  ==============================================
    method           is called                       with
    ===============  ==============================  ==============================================
    ``spec``         once, before anything else      what the transform before it gives
    ``forward``      for every training batch        ``obs``, ``action`` and ``action_is_pad``
    ``forward``      to fit the normaliser           the same; ``obs`` holds no rgb images
    ``forward``      to act                          ``obs`` alone
    ``inverse``      to act, in reverse order        actions, and the ``obs`` that forward received
    ===============  ==============================  ==============================================

    In a batch, the current time step is row :func:`obs_now` of every observation and row
    :func:`action_now` of the action. To act, observations end and actions begin with it.
    """

    def spec(self, spec: TaskSpec) -> TaskSpec:
        """What a batch holds after :meth:`forward`, given what it holds before.

        Raises:
            UserError: the transform does not fit ``spec``.
        """
        return spec

    @abstractmethod
    def forward(self, batch: Batch, spec: TaskSpec) -> Batch:
        """The transformed batch; what the transform does not concern passes through.

        Args:
            batch: see :data:`Batch`, in numpy. Any part of it may be missing.
            spec: what ``batch`` holds.
        """

    def inverse(self, action: np.ndarray, obs: Obs, spec: TaskSpec) -> np.ndarray:
        """Actions (B, Ta, Da) as they were before :meth:`forward`, from transformed ones.

        Args:
            action: (B, Ta, ...) float32, from the current time step on.
            obs: as :meth:`forward` received it.
            spec: as :meth:`forward` received it.
        """
        return action

    @property
    def reads_obs(self) -> bool:
        """Whether actions are changed by what is observed.

        If so, an action means something only together with the observation of its chunk.
        """
        return False

    @property
    def chains_actions(self) -> bool:
        """Whether an action means something only together with the one of the step before it."""
        return False


def obs_now(batch: Batch) -> int:
    """Index of the current time step among those of the observations."""
    return batch.get("obs_now", -1)


def action_now(batch: Batch) -> int:
    """Index of the current time step among those of the action."""
    return batch.get("action_now", 0)
