"""Videos of episodes that are chosen by their outcome: their actions are played once more.

Drawing and encoding every episode would take longer than playing it. Start and actions decide an
episode, so the video shows the one that was scored; the policy, whose rounding depends on its
batch, is not asked again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diffusion_policy.env_runner.episode import Episode
from diffusion_policy.gym_util.vector_env import VectorEnv

Chunks = list[np.ndarray]
"""The actions of an episode, (Ta, Da) for each time that the policy was asked."""


def first_of_each_outcome(episodes: Sequence[Episode], n: int) -> list[Episode]:
    """The first ``n`` of each outcome, in the order of ``episodes``."""
    chosen = [
        episode
        for outcome in (True, False, None)
        for episode in [each for each in episodes if each.success is outcome][:n]
    ]
    return sorted(chosen, key=lambda episode: episode.episode_ix)


def record(
    env: VectorEnv,
    episodes: Sequence[Episode],
    actions: Mapping[int, Chunks],
    folder: Path,
    *,
    progress: bool = False,
) -> list[Episode]:
    """``episodes`` with videos in ``folder``; one that does not repeat itself gets none.

    Args:
        actions: of each episode, by ``episode_ix``.
        progress: show a progress bar, at a terminal.
    """
    recorded = []
    total = sum(len(actions[episode.episode_ix]) for episode in episodes)
    # In chunks of actions; encoding makes it slow.
    with tqdm(total=total, desc="videos", disable=None if progress else True, leave=False) as bar:
        for first in range(0, len(episodes), env.n_envs):
            recorded += _record(env, episodes[first : first + env.n_envs], actions, folder, bar)
    return recorded


def _record(
    env: VectorEnv,
    episodes: Sequence[Episode],
    actions: Mapping[int, Chunks],
    folder: Path,
    bar: tqdm,
) -> list[Episode]:
    """At most as many episodes as there are slots, each in the slot of its position."""
    running = {slot: episode.recorded_in(folder) for slot, episode in enumerate(episodes)}
    env.reset(
        list(running),
        [episode.start for episode in running.values()],
        [episode.video for episode in running.values()],
    )
    chunks = [actions[episode.episode_ix] for episode in episodes]
    recorded = list(episodes)
    for turn in range(max(map(len, chunks))):
        slots = [slot for slot in running if turn < len(chunks[slot])]
        if not slots:
            break
        totals = env.step(slots, np.stack([chunks[slot][turn] for slot in slots]))
        bar.update(len(slots))
        for row in np.flatnonzero(totals.done).tolist():
            slot = slots[row]
            replayed = running.pop(slot).finished(totals, row)
            if replayed == replace(episodes[slot], video=replayed.video):
                recorded[slot] = replayed
            elif replayed.video is not None:
                replayed.video.unlink()
    for scored, episode in zip(episodes, recorded, strict=True):
        if episode is scored:
            print(
                f"note: no video of {scored.start.label}: with the same actions it went another "
                "way, so start and actions do not decide an episode of this environment"
            )
    return recorded
