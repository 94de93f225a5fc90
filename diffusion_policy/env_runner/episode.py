"""One episode of a rollout, and its outcome."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusion_policy.gym_util.vector_env import EpisodeTotals
from diffusion_policy.spec.start import Start


def outcome(success: bool | None) -> str:
    """How an episode ended, in a word: ``success``, ``failure``, or ``ended`` if nobody knows."""
    return {True: "success", False: "failure", None: "ended"}[success]


@dataclass(frozen=True)
class Episode:
    """One episode: how it begins, and how it went.

    Attributes:
        episode_ix: position in the plan of the run.
        start: where it begins.
        video: mp4 of the episode, None if it was not recorded.
        sum_reward, max_reward: over its steps.
        best_step: steps after which the max was reached first.
        success: whether any step succeeded; None if the environment never told.
        length: steps.
    """

    episode_ix: int
    start: Start
    video: Path | None = None
    sum_reward: float = 0.0
    max_reward: float = 0.0
    best_step: int = 0
    success: bool | None = None
    length: int = 0

    def recorded_in(self, folder: Path) -> Episode:
        """This episode, to be recorded in ``folder``."""
        return replace(self, video=folder / f"{self.start.group}_{self.start.name}.mp4")

    def finished(self, totals: EpisodeTotals, row: int) -> Episode:
        """This episode with its totals; the outcome becomes part of its video's name.

        A video that could not be written is none.
        """
        success = bool(totals.success[row]) if totals.tells_success[row] else None
        video = None
        if self.video is not None and self.video.is_file():
            named = self.video.with_stem(f"{self.video.stem}_{outcome(success)}")
            video = self.video.rename(named)
        return replace(
            self,
            video=video,
            sum_reward=float(totals.sum_reward[row]),
            max_reward=float(totals.max_reward[row]),
            best_step=int(totals.best_step[row]),
            success=success,
            length=int(totals.length[row]),
        )

    def record(self, folder: Path | None = None) -> dict[str, Any]:
        """Plain data for ``eval_info.json``; the video is relative to ``folder``."""
        video = None
        if self.video is not None:
            # Relative, so that the folder can be moved or sent.
            video = str(self.video if folder is None else self.video.relative_to(folder))
        return {
            "episode_ix": self.episode_ix,
            "group": self.start.group,
            "name": self.start.name,
            "seed": self.start.seed,
            "video": video,
            "sum_reward": self.sum_reward,
            "max_reward": self.max_reward,
            "best_step": self.best_step,
            "success": self.success,
            "length": self.length,
        }
