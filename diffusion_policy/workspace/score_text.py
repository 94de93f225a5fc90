"""The score as people read it, the same after training and after an evaluation."""

from __future__ import annotations


def score_text(
    success_rate: float | None, interval: tuple[float, float] | None, mean_max_reward: float
) -> str:
    """One line: the success rate with its 95 % interval, if known, and the mean max reward."""
    reward = f"mean max reward {mean_max_reward:.3f}"
    if success_rate is None or interval is None:
        return reward
    low, high = interval
    return f"success rate {success_rate:.1%} (95 % interval {low:.1%} to {high:.1%}), {reward}"
