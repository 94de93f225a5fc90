"""The dataset: load it, and read random windows of 16 steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.case import Options, Work, case, each
from benchmarks.demonstrations import demonstrations
from benchmarks.memory import resident_mb
from diffusion_policy.dataset.batch_order import BatchIndex
from diffusion_policy.dataset.stores.pusht_store import PushTStore
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.window_dataset import WindowDataset
from diffusion_policy.env.pusht.observations import OBSERVATIONS
from diffusion_policy.spec.window import Window

_HORIZON = 16
WHOLE = Window(tuple(range(1 - _HORIZON, 1)), tuple(range(1 - _HORIZON, 1)))
"""Observations and actions of 16 steps, the window that the public code reads."""
SEEN = Window((-1, 0), tuple(range(-1, _HORIZON - 1)))
"""16 actions, and only the 2 observations that a diffusion policy reads."""
IMAGE_KEYS = ("agent_pos", "image")
LOW_DIM_KEYS = ("agent_pos", "keypoint")


def open_dataset(
    options: Options, path: Path, keys: tuple[str, ...], window: Window
) -> WindowDataset:
    """Open every episode of a data set with these observations."""
    obs = {
        key: {
            "shape": list(OBSERVATIONS[key].space.shape),
            "type": "rgb" if key == "image" else "low_dim",
        }
        for key in keys
    }
    meta = {"obs": obs, "action": {"shape": [2]}}
    store = PushTStore(path, options.scratch / "cache")
    return WindowDataset(store, meta, window, val_ratio=0)


@each(
    case(
        "data.image",
        "image dataset, windows of 16 images, batch 64",
        "samples/s",
        reference=740,
        target=20,
        arguments={"keys": IMAGE_KEYS, "window": WHOLE, "batch_size": 64},
    ),
    case(
        "data.image_seen",
        "image dataset, windows of 16 actions and 2 images, batch 64",
        "samples/s",
        reference=740,
        target=20,
        arguments={"keys": IMAGE_KEYS, "window": SEEN, "batch_size": 64},
    ),
    case(
        "data.low_dim",
        "low-dim dataset, windows of 16, batch 256",
        "samples/s",
        reference=126_000,
        target=5,
        arguments={"keys": LOW_DIM_KEYS, "window": WHOLE, "batch_size": 256},
    ),
)
def windows(
    options: Options, keys: tuple[str, ...], window: Window, batch_size: int
) -> Iterator[Work]:
    path = demonstrations(options)
    yield read_windows(options, path, keys, window, batch_size)


def read_windows(
    options: Options, path: Path, keys: tuple[str, ...], window: Window, batch_size: int
) -> Work:
    """Read random batches of a dataset, from memory after the first repetition."""
    dataset = open_dataset(options, path, keys, window)
    n_batches = options.size(100, 2)
    random = np.random.default_rng(0)
    batches = [
        BatchIndex(random.integers(len(dataset), size=batch_size), seed)
        for seed in range(n_batches)
    ]

    def run() -> dict[str, Any]:
        for index in batches:
            batch = dataset.__getitems__(index)
        return batch

    def check(last: dict[str, Any]) -> None:
        expected = slow_reader(dataset, path)
        for row, sample in enumerate(batches[-1].samples[:8].tolist()):
            for key in keys:
                offsets = window.obs_offsets
                np.testing.assert_array_equal(last["obs"][key][row], expected(key, sample, offsets))
            actions = expected("action", sample, window.action_offsets)
            np.testing.assert_array_equal(last["action"][row], actions)

    return Work(run, check, n_batches * batch_size)


def slow_reader(dataset: WindowDataset, path: Path) -> Callable[..., np.ndarray]:
    """Return a function of key, sample and offsets that takes plain slices of stored episodes."""
    buffer = ReplayBuffer.create_from_path(path)
    ends = buffer.episode_ends

    def read(key: str, sample: int, offsets: tuple[int, ...]) -> np.ndarray:
        episode = int(np.searchsorted(ends, sample, side="right"))  # every step is a sample
        first, last = int(ends[episode - 1]) if episode else 0, int(ends[episode]) - 1
        steps = [min(max(sample + offset, first), last) for offset in offsets]

        def stored(name: str) -> np.ndarray:
            rows = buffer[name][steps[0] : steps[-1] + 1]
            return np.stack([rows[step - steps[0]] for step in steps])

        if key == "action":
            return stored("action")
        if key == "image" and "img" in buffer:
            return stored("img").transpose(0, 3, 1, 2)
        return np.stack([OBSERVATIONS[key].compute(state) for state in stored("state")])

    assert len(dataset) == dataset.store.n_steps
    return read


@each(
    case(
        "data.image_load",
        "image dataset, loading with a warm cache",
        "s",
        reference=4.4,
        target=4.4,
        arguments={"keys": IMAGE_KEYS},
    ),
    case(
        "data.low_dim_load",
        "low-dim dataset, loading",
        "s",
        arguments={"keys": LOW_DIM_KEYS},
    ),
)
def loading(options: Options, keys: tuple[str, ...]) -> Iterator[Work]:
    path = demonstrations(options)

    def check(dataset: WindowDataset) -> None:
        expected = slow_reader(dataset, path)
        for sample in np.linspace(0, len(dataset) - 1, 5).astype(int).tolist():
            for key in keys:
                np.testing.assert_array_equal(
                    dataset.store.read(key, np.array([sample])), expected(key, sample, (0,))
                )

    yield Work(lambda: open_dataset(options, path, keys, WHOLE), check)


@case(
    "data.image_memory",
    "image dataset, memory after reading every image once",
    "MB",
    reference=3400,
    target=4,
    max_repeats=1,
)
def image_memory(options: Options) -> Iterator[Work]:
    """Most of this memory is pages of the mapped cache file, which the system can reclaim."""
    path = demonstrations(options)

    dataset = open_dataset(options, path, IMAGE_KEYS, SEEN)
    n_bytes = dataset.store.n_steps * dataset.spec.obs["image"].size

    def run() -> float:
        before = resident_mb()
        dataset = open_dataset(options, path, IMAGE_KEYS, SEEN)
        for first in range(0, len(dataset), 64):
            samples = np.arange(first, min(first + 64, len(dataset)))
            dataset.__getitems__(BatchIndex(samples, 0))
        return resident_mb() - before

    def check(figure: float) -> None:
        assert figure > 0.9 * n_bytes / 1e6, "some images were not read"

    yield Work(run, check)
