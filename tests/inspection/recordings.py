"""Made-up recordings in which nothing is wrong, to spoil one thing at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from diffusion_policy.dataset.stores.episode_store import EpisodeInfo
from diffusion_policy.dataset.stores.memory_store import MemoryStore

LENGTHS = (40, 50, 45, 60, 42)
SIZE = (24, 32)


def good_arrays(lengths: Sequence[int] = LENGTHS, cameras: bool = True) -> dict[str, np.ndarray]:
    """Two joints that swing, actions just ahead of them, and two cameras that see them."""
    episodes = [_episode(length, seed, cameras) for seed, length in enumerate(lengths)]
    return {key: np.concatenate([one[key] for one in episodes]) for key in episodes[0]}


def _episode(length: int, seed: int, cameras: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    time = np.arange(length + 1)[:, None] / 10
    swing = np.sin(time * rng.uniform(0.8, 1.2, 2) + rng.uniform(0, 6, 2)).astype(np.float32)
    swing += rng.normal(0, 0.01, swing.shape).astype(np.float32)
    found = {"state": swing[:-1], "action": swing[1:], "timestamp": time[:-1].astype(np.float32)}
    if cameras:
        found["front"] = _images(swing[:-1], (200, 60, 40))
        found["wrist"] = _images(swing[:-1], (30, 90, 160))
    return found


def _images(swing: np.ndarray, colour: Sequence[int]) -> np.ndarray:
    """(L, 3, H, W): a coloured room, and a bar where the first joint is."""
    images = np.empty((len(swing), 3, *SIZE), np.uint8)
    images[:] = np.array(colour, np.uint8)[:, None, None]
    images[:, :, :12] //= 2
    for image, (joint, _) in zip(images, swing, strict=True):
        x = int((joint + 1.1) / 2.3 * (SIZE[1] - 4))
        image[:, 4:20, x : x + 4] = 255
    return images


def store_of(
    arrays: Mapping[str, np.ndarray],
    lengths: Sequence[int] = LENGTHS,
    tasks: Sequence[str | None] | None = None,
) -> MemoryStore:
    """A store of these arrays at 10 Hz."""
    tasks = tasks or ["swing"] * len(lengths)
    episodes = [EpisodeInfo(task=task, source=f"episode {i}") for i, task in enumerate(tasks)]
    return MemoryStore(arrays, np.cumsum(lengths), fps=10, episodes=episodes)
