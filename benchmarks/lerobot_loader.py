"""Measure the loader of the published lerobot package on a data set; runs in its environment.

It reads the windows of ``benchmarks/videos.py`` and imports nothing of this project. The backend
``seek`` is PyAV as later versions of lerobot use it where torchcodec is missing: open a file, seek
to the key frame, decode up to the frame. It stands in where neither of the package's own two works.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import statistics
import time
from pathlib import Path

import av
import numpy as np
import torch

CAMERAS = ("observation.images.front", "observation.images.wrist")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=4, help="of a repetition")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--backend", nargs="+", default=["torchcodec", "seek"])
    options = parser.parse_args()
    versions = {name: importlib.metadata.version(name) for name in ("lerobot", "torch", "av")}
    print(versions)
    for backend in options.backend:
        for workers in options.workers:
            measure(options, backend, workers)


def decode_by_seeking(
    path: Path, timestamps: list[float], tolerance_s: float, backend: str | None = None
) -> torch.Tensor:
    """Frames (n, 3, H, W) float32 of 0..1."""
    times, frames = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        container.seek(int(min(timestamps) / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            times.append(frame.time)
            frames.append(frame.to_ndarray(format="rgb24"))
            if frame.time >= max(timestamps) - tolerance_s:
                break
    nearest = [int(np.abs(np.array(times) - wanted).argmin()) for wanted in timestamps]
    chosen = torch.from_numpy(np.stack([frames[i] for i in nearest]))
    return chosen.permute(0, 3, 1, 2).float() / 255


def measure(options: argparse.Namespace, backend: str, workers: int) -> None:
    from lerobot.datasets import lerobot_dataset  # late, so that --help works without it

    if backend == "seek":
        lerobot_dataset.decode_video_frames = decode_by_seeking
    fps = 10
    deltas = {key: [-1 / fps, 0.0] for key in (*CAMERAS, "observation.state")}
    deltas["action"] = [i / fps for i in range(-1, 15)]
    dataset = lerobot_dataset.LeRobotDataset(
        f"local/{options.folder.name}",
        root=options.folder,
        delta_timestamps=deltas,
        video_backend="pyav" if backend == "seek" else backend,
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
