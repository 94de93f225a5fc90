"""Small LeRobot datasets, written file by file as the format says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from diffusion_policy.dataset.video.priority import keeper

FPS = 10
NAMES = ["height", "width", "channels"]


def encode(
    path: Path,
    images: np.ndarray,
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
    fps: int = FPS,
) -> None:
    """An mp4 of images (n, 3, H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    keep_priority = keeper()
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options={"crf": "12", **(options or {})})
        stream.height, stream.width = images.shape[2:]
        stream.pix_fmt = "yuv420p"
        for i, image in enumerate(images):
            channels_last = np.ascontiguousarray(image.transpose(1, 2, 0))
            frame = av.VideoFrame.from_ndarray(channels_last, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    keep_priority()


def decoded(path: Path) -> np.ndarray:
    """All frames (n, 3, H, W) of a video, one after another."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames).transpose(0, 3, 1, 2)


def small_images(n: int, seed: int = 0, height: int = 32, width: int = 48) -> np.ndarray:
    """Images (n, 3, H, W) that all differ, smooth enough to survive a codec."""
    corners = np.random.default_rng(seed).integers(0, 256, (n, 3, 2, 2))
    rows, columns = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)
    (a, b), (c, d) = np.moveaxis(corners, (2, 3), (0, 1))[..., None, None]
    top, bottom = a * (1 - columns) + b * columns, c * (1 - columns) + d * columns
    return (top * (1 - rows) + bottom * rows).astype(np.uint8)


def write_v21(root: Path, arrays: Mapping[str, Any], lengths: Sequence[int]) -> Path:
    """Version 2.1 with every image key as H.264 videos with B frames, one each episode."""
    starts = np.cumsum([0, *lengths])
    tasks = list(dict.fromkeys(arrays["task"]))
    lines = []
    for i, length in enumerate(lengths):
        steps = slice(starts[i], starts[i + 1])
        table = _columns(arrays, steps, i, tasks)
        path = root / f"data/chunk-{i // 2:03d}/episode_{i:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        for key in _cameras(arrays):
            video = root / f"videos/chunk-{i // 2:03d}/{key}/episode_{i:06d}.mp4"
            encode(video, arrays[key][steps], options={"g": "4", "bf": "2"})
        told = sorted(set(arrays["task"][steps]))
        lines.append({"episode_index": i, "tasks": told, "length": length})
    (root / "meta").mkdir()
    _write_lines(root / "meta/episodes.jsonl", lines)
    rows = [{"task_index": i, "task": task} for i, task in enumerate(tasks)]
    _write_lines(root / "meta/tasks.jsonl", rows)
    info = {
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/"
        "episode_{episode_index:06d}.mp4",
        "chunks_size": 2,
    }
    _write_info(root, "v2.1", info, arrays, lengths, tasks, "video")
    return root


def write_v30(root: Path, arrays: Mapping[str, Any], lengths: Sequence[int]) -> Path:
    """Version 3.0 in one file, with every image key as PNG."""
    starts = np.cumsum([0, *lengths])
    tasks = list(dict.fromkeys(arrays["task"]))
    rows = [
        {
            **{"episode_index": i, "length": length, "tasks": [arrays["task"][starts[i]]]},
            **{"data/chunk_index": 0, "data/file_index": 0},
            **{"dataset_from_index": starts[i], "dataset_to_index": starts[i + 1]},
        }
        for i, length in enumerate(lengths)
    ]
    parts = [
        _columns(arrays, slice(starts[i], starts[i + 1]), i, tasks, pictures=True)
        for i in range(len(lengths))
    ]
    texts = {"task_index": range(len(tasks)), "task": tasks}
    for path, table in (
        ("data/chunk-000/file-000.parquet", pa.concat_tables(parts)),
        ("meta/episodes/chunk-000/file-000.parquet", pa.Table.from_pylist(rows)),
        ("meta/tasks.parquet", pa.table(texts)),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, root / path)
    info = {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "chunks_size": 1000,
    }
    _write_info(root, "v3.0", info, arrays, lengths, tasks, "image")
    return root


def _cameras(arrays: Mapping[str, Any]) -> list[str]:
    return [key for key, values in arrays.items() if getattr(values, "ndim", 0) == 4]


def _columns(
    arrays: Mapping[str, Any], steps: slice, episode: int, tasks: list[str], pictures: bool = False
) -> pa.Table:
    n = steps.stop - steps.start
    columns: dict[str, Any] = {
        "timestamp": pa.array(np.arange(n, dtype=np.float32) / np.float32(FPS)),
        "frame_index": np.arange(n),
        "episode_index": np.full(n, episode),
        "index": np.arange(steps.start, steps.stop),
        "task_index": [tasks.index(task) for task in arrays["task"][steps]],
    }
    for key, values in arrays.items():
        if key in _cameras(arrays):
            if pictures:
                columns[key] = [{"bytes": _png(image), "path": "a.png"} for image in values[steps]]
        elif isinstance(values, np.ndarray):
            flat = pa.array(values[steps].ravel())
            columns[key] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.table(columns)


def _png(image: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file, "PNG")
    return file.getvalue()


def _write_info(
    root: Path,
    version: str,
    info: Mapping[str, Any],
    arrays: Mapping[str, Any],
    lengths: Sequence[int],
    tasks: Sequence[str],
    image_type: str,
) -> None:
    features: dict[str, Any] = {}
    for key, values in arrays.items():
        if key in _cameras(arrays):
            shape = [*values.shape[2:], 3]
            features[key] = {"dtype": image_type, "shape": shape, "names": NAMES}
        elif isinstance(values, np.ndarray):
            features[key] = {"dtype": str(values.dtype), "shape": list(values.shape[1:])}
    content = {
        **{"codebase_version": version, "robot_type": None, "fps": FPS, "features": features},
        **{"total_episodes": len(lengths), "total_frames": sum(lengths), "total_tasks": len(tasks)},
        **info,
    }
    (root / "meta/info.json").write_text(json.dumps(content))


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
