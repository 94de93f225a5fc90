"""The scores of a rollout, by name, as they are logged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffusion_policy.env_runner.episode import Episode
from diffusion_policy.util.statistics import wilson_interval


def scores(episodes: Sequence[Episode]) -> dict[str, Any]:
    """What :meth:`EnvRunner.run` returns about ``episodes``."""
    log: dict[str, Any] = {}
    for group in dict.fromkeys(episode.start.group for episode in episodes):
        log |= _group_scores(group, [e for e in episodes if e.start.group == group])
    return log


def count_successes(episodes: Sequence[Episode]) -> int | None:
    """How many succeeded; None if that is not known of each of them."""
    outcomes = [episode.success for episode in episodes]
    return None if None in outcomes else outcomes.count(True)


def note_on_success(episodes: Sequence[Episode]) -> str | None:
    """A line for people if there is no success rate; None if there is one."""
    n_silent = sum(episode.success is None for episode in episodes)
    if not n_silent:
        return None
    return (
        f"note: no success rate, since the environment did not tell the success of {n_silent} of "
        f"{len(episodes)} episodes; let the info of its steps hold a bool as success or is_success"
    )


def _group_scores(group: str, episodes: Sequence[Episode]) -> dict[str, Any]:
    log: dict[str, Any] = {
        f"{group}/mean_score": float(np.mean([episode.max_reward for episode in episodes]))
    }
    if (successes := count_successes(episodes)) is not None:
        low, high = wilson_interval(successes, len(episodes))
        log[f"{group}/success_rate"] = successes / len(episodes)
        log[f"{group}/success_ci_low"], log[f"{group}/success_ci_high"] = low, high
    for episode in episodes:
        name = episode.start.name
        log[f"{group}/sim_max_reward_{name}"] = episode.max_reward
        log[f"{group}/sim_sum_reward_{name}"] = episode.sum_reward
        if episode.success is not None:
            log[f"{group}/sim_success_{name}"] = int(episode.success)
        log[f"{group}/sim_length_{name}"] = episode.length
        if episode.video is not None:
            log[f"{group}/sim_video_{name}"] = str(episode.video)
    return log
