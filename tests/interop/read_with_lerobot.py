"""Run by the Python of the published lerobot package: read a data set and print what it holds.

python read_with_lerobot.py FOLDER CAMERA
"""

import json
import sys
from importlib.metadata import version

import av
import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

DECODERS: list[str] = []


def decode_with_pyav(video_path, timestamps, tolerance_s, *_, **__):
    """In the place of decoders that this machine lacks: the nearest frame within the tolerance."""
    with av.open(str(video_path)) as container:
        stream = container.streams.video[0]
        frames = [
            (float(frame.pts * stream.time_base), frame.to_ndarray(format="rgb24"))
            for frame in container.decode(stream)
        ]
    times = np.array([time for time, _ in frames])
    found = []
    for wanted in timestamps:
        nearest = int(np.abs(times - wanted).argmin())
        assert abs(times[nearest] - wanted) < tolerance_s, (wanted, times[nearest])
        found.append(torch.from_numpy(frames[nearest][1].transpose(2, 0, 1).copy()))
    DECODERS.append("PyAV")
    return torch.stack(found).float() / 255


def read(path: str, camera: str) -> dict:
    dataset = LeRobotDataset("me/mine", root=path)
    try:
        dataset[0]
    except Exception as error:
        print(f"own decoder: {error!r:.200}", file=sys.stderr)
        for module in list(sys.modules.values()):
            if getattr(module, "__name__", "").startswith("lerobot") and hasattr(
                module, "decode_video_frames"
            ):
                module.decode_video_frames = decode_with_pyav
    items = [dataset[i] for i in range(len(dataset))]
    steps = {camera: [0.0], "action": [0.0, 1 / dataset.fps]}
    windows = LeRobotDataset("me/mine", root=path, delta_timestamps=steps)
    return {
        "version": version("lerobot"),
        "decoder": DECODERS[0] if DECODERS else "its own",
        "length": len(dataset),
        "episodes": dataset.num_episodes,
        "tasks": [item["task"] for item in items],
        "state": [item["state"].tolist() for item in items],
        "action": [item["action"].tolist() for item in items],
        "index": [int(item["index"]) for item in items],
        "timestamp": [float(item["timestamp"]) for item in items],
        "shape": list(items[0][camera].shape),
        "mean": [item[camera].mean(dim=(1, 2)).tolist() for item in items],
        "is_pad": [window["action_is_pad"].tolist() for window in windows],
        "statistics": {
            key: {name: np.asarray(value).ravel().tolist() for name, value in stats.items()}
            for key, stats in dataset.meta.stats.items()
            if key in ("state", "action", camera)
        },
    }


if __name__ == "__main__":
    print(json.dumps(read(*sys.argv[1:])))
