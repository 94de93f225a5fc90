"""One episode of a rollout, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from diffusion_policy.gym_util.vector_env import EpisodeTotals


@dataclass(frozen=True)
class Episode:
    """One episode: what was planned, and how it went.

    Attributes:
        episode_ix: position in the plan of the run.
        prefix: ``train`` or ``test``, by which results are grouped.
        seed: of the environment's reset.
        video: mp4 of the episode, None if it was not recorded.
        sum_reward, max_reward: over its steps.
        best_step: steps after which the max was reached first.
        success: whether any step succeeded.
        length: steps.
    """

    episode_ix: int
    prefix: str
    seed: int
    video: Path | None = None
    sum_reward: float = 0.0
    max_reward: float = 0.0
    best_step: int = 0
    success: bool = False
    length: int = 0

    def finished(self, totals: EpisodeTotals, row: int) -> Episode:
        """This episode with its totals; the name of its video tells the outcome."""
        success, video = bool(totals.success[row]), self.video
        if video is not None:
            outcome = "success" if success else "failure"
            video = video.rename(video.with_stem(f"{video.stem}_{outcome}"))
        return replace(
            self,
            video=video,
            sum_reward=float(totals.sum_reward[row]),
            max_reward=float(totals.max_reward[row]),
            best_step=int(totals.best_step[row]),
            success=success,
            length=int(totals.length[row]),
        )
