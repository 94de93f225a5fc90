"""The score as people read it, the same after training and after an evaluation."""

from __future__ import annotations


def score_text(success_rate: float, interval: tuple[float, float], mean_max_reward: float) -> str:
    """One line: the success rate with its 95 % interval, and the mean max reward."""
    low, high = interval
    return (
        f"success rate {success_rate:.1%} (95 % interval {low:.1%} to {high:.1%}), "
        f"mean max reward {mean_max_reward:.3f}"
    )
