"""Measure how cost grows with size; the report computes the exponent of each series."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.case import Options, Work, case, each
from benchmarks.data import (
    IMAGE_KEYS,
    LOW_DIM_KEYS,
    SEEN,
    WHOLE,
    open_dataset,
    read_windows,
    slow_reader,
)
from benchmarks.demonstrations import HUMAN_EPISODES, copies, demonstrations
from benchmarks.memory import resident_mb
from diffusion_policy.dataset.batch_order import BatchIndex
from diffusion_policy.dataset.window_dataset import WindowDataset
from diffusion_policy.gym_util.vector_env import VectorEnv
from diffusion_policy.policy.base_policy import Batch
from diffusion_policy.spec.start import Start
from diffusion_policy.spec.window import Window

_SIZES = (1, 10, 100)


def _series(name: str, what: str, unit: str, sizes: tuple[int, ...] = _SIZES, **facts: Any) -> Any:
    """Register one case per size."""

    def register(function: Any) -> Any:
        for size in sizes:
            case(
                f"{name}_{size}",
                what.format(size),
                unit,
                series=name,
                size=size,
                arguments={"size": size},
                **facts,
            )(function)
        return function

    return register


@_series("growth.loading", "low-dim dataset, {} x 206 episodes, loading", "s", max_repeats=3)
def loading(options: Options, size: int) -> Iterator[Work]:
    path = copies(options, size * options.size(HUMAN_EPISODES, 2))

    def check(dataset: WindowDataset) -> None:
        assert len(dataset) == dataset.episode_ends[-1]

    yield Work(lambda: open_dataset(options, path, LOW_DIM_KEYS, WHOLE), check)


@_series("growth.windows", "low-dim dataset, {} x 206 episodes, windows of 16", "samples/s")
def windows(options: Options, size: int) -> Iterator[Work]:
    path = copies(options, size * options.size(HUMAN_EPISODES, 2))
    yield read_windows(options, path, LOW_DIM_KEYS, WHOLE, 256)


@_series("growth.horizon", "low-dim dataset, windows of {}", "samples/s", sizes=(16, 64, 256))
def horizon(options: Options, size: int) -> Iterator[Work]:
    window = Window(tuple(range(1 - size, 1)), tuple(range(1 - size, 1)))
    path = copies(options, options.size(HUMAN_EPISODES, 2))
    yield read_windows(options, path, LOW_DIM_KEYS, window, 256)


@_series("growth.environments", "{} PushT keypoint environments in one worker", "steps/s")
def environments(options: Options, size: int) -> Iterator[Work]:
    slots, n_steps = list(range(size)), options.size(max(1, 1000 // size), 2)
    actions = np.random.default_rng(0).uniform(50, 450, (n_steps, size, 1, 2))
    with VectorEnv({"id": "diffusion_policy/PushTKeypoints-v0"}, size, n_workers=1) as env:

        def run() -> float:
            env.reset(slots, [Start.of_seed("test", seed) for seed in slots])
            for action in actions:
                totals = env.step(slots, action)
            return totals.sum_reward[0]

        def check(sum_reward: float) -> None:
            """Compare the first slot with the same episode played alone."""
            env.reset([0], [Start.of_seed("test", 0)])
            for action in actions:
                totals = env.step([0], action[:1])
            assert totals.sum_reward[0] == sum_reward

        yield Work(run, check, n_steps * size)


@each(
    case(
        "growth.from_disk",
        "image dataset, windows of 2 images, batch 64, no image in memory",
        "samples/s",
        max_repeats=5,
    ),
    case(
        "growth.from_disk_memory",
        "the same: growth of the process's own memory",
        "MB",
        max_repeats=5,
    ),
)
def from_disk(options: Options) -> Iterator[Work]:
    """Measure the speed when the images are far larger than the memory."""
    path = demonstrations(options)
    dataset = open_dataset(options, path, IMAGE_KEYS, SEEN)
    n_batches = options.size(50, 1)
    random = np.random.default_rng(0)
    read: list[tuple[np.ndarray, Batch]] = []

    def run() -> float:
        before = resident_mb(entry="RssAnon")
        for _ in range(n_batches):
            _forget(dataset.store._computed["image"])
            samples = random.integers(len(dataset), size=64)
            read[:] = [(samples, dataset.__getitems__(BatchIndex(samples, 0)))]
        return resident_mb(entry="RssAnon") - before

    def check(_: float) -> None:
        ((samples, batch),) = read
        expected = slow_reader(dataset, path)
        for row in range(8):
            images = expected("image", int(samples[row]), SEEN.obs_offsets)
            np.testing.assert_array_equal(batch["obs"]["image"][row], images)

    yield Work(run, check, n_batches * 64)


def _forget(images: np.memmap) -> None:
    """Make the system drop every page of a mapped file."""
    images._mmap.madvise(mmap.MADV_DONTNEED)
    with Path(images.filename).open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
