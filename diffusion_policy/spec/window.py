"""Which time steps a policy reads and predicts, relative to now."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Time offsets, in control steps relative to now (0), of one training sample.

    A sample for step t holds the observations at ``t + obs_offsets`` and the actions at
    ``t + action_offsets``; steps outside the episode repeat its edge and are marked as padding.

    ======================  ==================  ======================================
    policy                  obs_offsets         action_offsets
    ======================  ==================  ======================================
    To = 2, T = 16          -1, 0               -1, 0, ..., 14
    DOT, 10 steps lookback  -10, -1, 0          -10, -1, 0, ..., 19
    ======================  ==================  ======================================

    Attributes:
        obs_offsets: ascending, the last is 0; To of them.
        action_offsets: ascending; T of them.
        pad_after: how far the last action may lie past the end of the episode; None for any
            distance, so that every step of an episode is a sample.
        jitter: in training, a batch moves the first offset of both by one draw from
            -jitter..jitter.
        future_obs_offsets: ascending, from 1; observations that training samples hold after the To
            ones, for policies that predict observations too.
    """

    obs_offsets: tuple[int, ...]
    action_offsets: tuple[int, ...]
    pad_after: int | None = None
    jitter: int = 0
    future_obs_offsets: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        # Hydra hands lists over.
        for name in ("obs_offsets", "action_offsets", "future_obs_offsets"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.obs_offsets[-1] != 0 or list(self.obs_offsets) != sorted(set(self.obs_offsets)):
            raise ValueError(f"obs_offsets are {self.obs_offsets}; give ascending steps up to 0")
        if self.jitter and (
            len(self.obs_offsets) < 2 or self.obs_offsets[0] + self.jitter >= self.obs_offsets[1]
        ):
            raise ValueError(
                f"jitter is {self.jitter}, so the first of {self.obs_offsets} could pass the second"
            )
        future = self.future_obs_offsets
        if list(future) != sorted(set(future)) or min(future, default=1) < 1:
            raise ValueError(f"future_obs_offsets are {future}; give ascending steps from 1")

    @property
    def sample_obs_offsets(self) -> tuple[int, ...]:
        """Every observation of a training sample."""
        return self.obs_offsets + self.future_obs_offsets
