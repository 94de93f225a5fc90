"""A LeRobot data set with two cameras: read random windows, decoded each time or from a cache.

``python benchmarks/lerobot_loader.py FOLDER`` measures the loader of the published package on the
same files, which ``--scratch`` keeps.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.case import Options, Work, case, each
from diffusion_policy.dataset.batch_order import BatchIndex
from diffusion_policy.dataset.stores.lerobot.metadata import read_metadata
from diffusion_policy.dataset.stores.lerobot.writer import LeRobotWriter
from diffusion_policy.dataset.video.encoder import VideoEncoding
from diffusion_policy.dataset.window_dataset import WindowDataset
from diffusion_policy.spec.window import Window

_CAMERAS = ("observation.images.front", "observation.images.wrist")
_BATCH_SIZE = 64
_WINDOW = Window((-1, 0), tuple(range(-1, 15)))
"""2 images of each camera and 16 actions."""
_FPS = 10


@each(
    *(
        case(
            f"videos.{name}_{cache}",
            f"two cameras of {height} x {width}, {what}, batch {_BATCH_SIZE}",
            "samples/s",
            arguments={"height": height, "width": width, "cache": cache},
        )
        for name, height, width in (("small", 96, 96), ("large", 480, 640))
        for cache, what in (("none", "decoded each time"), ("disk", "cached"))
    )
)
def windows(options: Options, height: int, width: int, cache: str) -> Iterator[Work]:
    if options.tiny:
        height, width = height // 4, width // 4
    path = recording(options, height, width)
    images = {key: {"shape": [3, height, width], "type": "rgb"} for key in _CAMERAS}
    meta = {"obs": {**images, "observation.state": {"shape": [6]}}, "action": {"shape": [6]}}
    dataset = WindowDataset(
        path, meta, _WINDOW, cache=cache, cache_dir=options.scratch / "cache", val_ratio=0
    )
    n_batches = options.size(4 if cache == "none" else 20, 1)
    random = np.random.default_rng(0)
    batches = [
        BatchIndex(random.integers(len(dataset), size=_BATCH_SIZE), seed)
        for seed in range(n_batches)
    ]

    def run() -> dict[str, Any]:
        for index in batches:
            batch = dataset.__getitems__(index)
        return batch

    def check(last: dict[str, Any]) -> None:
        starts = np.array([0, *dataset.episode_ends[:-1]])
        for key in _CAMERAS:
            frames = _one_after_another(path, key)
            for row, step in enumerate(batches[-1].samples[:8].tolist()):
                first = starts[np.searchsorted(dataset.episode_ends, step, side="right")]
                expected = frames[[max(step - 1, first), step]]
                np.testing.assert_array_equal(last["obs"][key][row], expected)

    yield Work(run, check, n_batches * _BATCH_SIZE)


def recording(options: Options, height: int, width: int) -> Path:
    """A data set of version 3.0 in H.264, with a key frame at every second step as lerobot has it.

    Shapes move over noise.
    """
    path = options.scratch / f"lerobot_h264_{height}x{width}"
    if path.exists():
        return path
    random = np.random.default_rng(0)
    background = random.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    background = background.repeat(8, axis=0).repeat(8, axis=1).transpose(2, 0, 1)
    with LeRobotWriter(path, _FPS, encoding=VideoEncoding("h264", crf=23)) as writer:
        for episode in range(options.size(10, 2)):
            length = options.size(120, 20) + episode
            state = random.normal(size=(length, 6)).astype(np.float32)
            values = {"observation.state": state, "action": state + 1, "task": ["move"] * length}
            for camera, key in enumerate(_CAMERAS):
                frames = np.repeat(background[None], length, axis=0)
                for step in range(length):
                    top = (step * 2 + 10 * camera) % (height // 2)
                    left = (step * 3 + 10 * episode) % (width // 2)
                    shape = np.s_[step, :, top : top + height // 3, left : left + width // 4]
                    frames[shape] = step * 2 % 256
                noise = random.integers(-4, 5, frames.shape, np.int8)
                values[key] = np.clip(frames.astype(np.int16) + noise, 0, 255).astype(np.uint8)
            writer.add_episode(values)
    return path


def _one_after_another(path: Path, key: str) -> np.ndarray:
    """(N, 3, H, W) of all steps, decoded file by file."""
    files = dict.fromkeys(episode.videos[key].path for episode in read_metadata(path).episodes)
    frames = []
    for file in files:
        with av.open(str(file)) as container:
            frames += [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames).transpose(0, 3, 1, 2)
