"""Measure the loader of the published lerobot package on a data set; runs in its environment.

It reads the windows of ``benchmarks/videos.py`` and imports nothing of this project.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import statistics
import time
from pathlib import Path

import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

CAMERAS = ("observation.images.front", "observation.images.wrist")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=4, help="of a repetition")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--backend", nargs="+", default=["torchcodec", "pyav"])
    options = parser.parse_args()
    versions = {name: importlib.metadata.version(name) for name in ("lerobot", "torch", "av")}
    print(versions)
    for backend in options.backend:
        for workers in options.workers:
            measure(options, backend, workers)


def measure(options: argparse.Namespace, backend: str, workers: int) -> None:
    fps = 10
    deltas = {key: [-1 / fps, 0.0] for key in (*CAMERAS, "observation.state")}
    deltas["action"] = [i / fps for i in range(-1, 15)]
    dataset = LeRobotDataset(
        f"local/{options.folder.name}",
        root=options.folder,
        delta_timestamps=deltas,
        video_backend=backend,
    )
    generator = torch.Generator().manual_seed(0)
    n_samples = options.batch_size * options.batches * (options.repeats + 1)
    sampler = torch.utils.data.RandomSampler(
        dataset, replacement=True, num_samples=n_samples, generator=generator
    )
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=options.batch_size, sampler=sampler, num_workers=workers
    )
    batches, rates = iter(loader), []
    for repeat in range(options.repeats + 1):
        start = time.perf_counter()
        for _ in range(options.batches):
            next(batches)
        if repeat:  # the first opens the files
            seconds = time.perf_counter() - start
            rates.append(options.batch_size * options.batches / seconds)
    print(f"{backend}, {workers} workers: median {statistics.median(rates):.1f} samples/s {rates}")


if __name__ == "__main__":
    main()
