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


def _group_scores(group: str, episodes: Sequence[Episode]) -> dict[str, Any]:
    successes = sum(episode.success for episode in episodes)
    low, high = wilson_interval(successes, len(episodes))
    log: dict[str, Any] = {
        f"{group}/mean_score": float(np.mean([episode.max_reward for episode in episodes])),
        f"{group}/success_rate": successes / len(episodes),
        f"{group}/success_ci_low": low,
        f"{group}/success_ci_high": high,
    }
    for episode in episodes:
        name = episode.start.name
        log[f"{group}/sim_max_reward_{name}"] = episode.max_reward
        log[f"{group}/sim_sum_reward_{name}"] = episode.sum_reward
        log[f"{group}/sim_success_{name}"] = int(episode.success)
        log[f"{group}/sim_length_{name}"] = episode.length
        if episode.video is not None:
            log[f"{group}/sim_video_{name}"] = str(episode.video)
    return log
