"""Kinds of failed episodes, by their rewards.

====================  ===========================================================================
near miss             max reward of at least 0.95: stopped just under the threshold
slow                  the best reward came within the last 30 steps: time ended too early
lost                  max reward below 0.8: the episode never came near success
in between            any other
====================  ===========================================================================

The first kind that applies counts. The thresholds suit rewards that are 1 at success. Records of
earlier versions lack the step of the best reward, so none of their episodes counts as slow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

NEAR_MISS_REWARD = 0.95
LOST_REWARD = 0.8
LAST_STEPS = 30
MEANINGS = {
    "near miss": f"max reward of {NEAR_MISS_REWARD} or more",
    "slow": f"best reward within the last {LAST_STEPS} steps",
    "lost": f"max reward below {LOST_REWARD}",
    "in between": "any other",
}


def failure_kind(episode: Mapping[str, Any]) -> str:
    """The kind, a key of :data:`MEANINGS`, of a failed episode of ``eval_info.json``."""
    if episode["max_reward"] >= NEAR_MISS_REWARD:
        return "near miss"
    best_step = episode.get("best_step")
    if best_step is not None and best_step > episode["length"] - LAST_STEPS:
        return "slow"
    return "lost" if episode["max_reward"] < LOST_REWARD else "in between"


def count_failures(episodes: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Failed episodes of each kind; ``slow`` is left out where the records cannot tell."""
    episodes = list(episodes)
    telling = all("best_step" in episode for episode in episodes)
    kinds = [failure_kind(episode) for episode in episodes if not episode["success"]]
    return {kind: kinds.count(kind) for kind in MEANINGS if telling or kind != "slow"}
