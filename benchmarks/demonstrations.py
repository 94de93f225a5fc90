"""Data sets for the benchmarks: human demonstrations if given, else copies of scripted ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.case import Options
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer

SCRIPTED = Path(__file__).parents[1] / "data" / "demonstrations" / "pusht_scripted.zarr.zip"
HUMAN_EPISODES = 206


def demonstrations(options: Options) -> Path:
    """Return demonstrations with states and actions; images are recorded or drawn from states."""
    if options.demos is not None and not options.tiny:
        return options.demos
    return copies(options, options.size(HUMAN_EPISODES, 2))


def copies(options: Options, n_episodes: int) -> Path:
    """Make ``n_episodes`` by repeating the scripted episodes, each time with new noise."""
    path = options.scratch / f"scripted_{n_episodes}.zarr"
    if path.exists():
        return path
    scripted = ReplayBuffer.copy_from_path(SCRIPTED, keys=["state", "action"])
    random = np.random.default_rng(0)
    episodes = [scripted.get_episode_slice(i % scripted.n_episodes) for i in range(n_episodes)]
    rows = np.concatenate([np.arange(rows.start, rows.stop) for rows in episodes])
    data = {key: array[rows] for key, array in scripted.items()}
    data["state"] += random.normal(0, 0.1, data["state"].shape).astype(np.float32)
    ends = np.cumsum([rows.stop - rows.start for rows in episodes])
    ReplayBuffer({"data": data, "meta": {"episode_ends": ends}}).save_to_path(path)
    return path
