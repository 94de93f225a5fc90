"""A mixture of two embodiments in one file: a small robot, and a large one in other units."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from diffusion_policy.dataset.mixture import Mixture
from diffusion_policy.dataset.stores.memory_store import MemoryStore
from diffusion_policy.dataset.window_dataset import WindowDataset
from diffusion_policy.spec.window import Window

META = {
    "obs": {"position": {"shape": [2]}, "task": {"type": "text"}},
    "action": {"shape": [2]},
}
UNITS = {"small": 1.0, "large": 1000.0}
LENGTHS = {"small": [4, 6, 5], "large": [20, 25]}
WINDOW = Window((-1, 0), (0, 1, 2))


def toy_store(name: str) -> MemoryStore:
    """Episodes of one robot, whose numbers tell the robot and the step."""
    ends = np.cumsum(LENGTHS[name])
    steps = np.arange(ends[-1], dtype=np.float32)
    position = np.stack([steps, -steps], axis=1) * UNITS[name]
    arrays = {"position": position, "action": position, "task": [name] * len(steps)}
    return MemoryStore(arrays, ends)


def toy_mixture(
    weights: Mapping[str, float] | None = None, window: Window = WINDOW, val_ratio: float = 0
) -> Mixture:
    """Both robots, each with its own statistics."""
    datasets = {
        name: partial(WindowDataset, toy_store(name), embodiment=name, val_ratio=val_ratio)
        for name in UNITS
    }
    return Mixture(META, window, datasets=datasets, weights=weights)
