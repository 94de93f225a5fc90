"""Episodes and tasks of LeRobot datasets of version 2, in files of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion_policy.dataset.stores.lerobot.checks import REMEDY, about, in_order
from diffusion_policy.dataset.stores.lerobot.episode_record import EpisodeRecord
from diffusion_policy.dataset.stores.lerobot.info import (
    INFO,
    INITIAL_STATE,
    chunks_size,
    completed,
    video_template,
)
from diffusion_policy.dataset.stores.lerobot.templates import FileTemplate
from diffusion_policy.dataset.video.segment import VideoSegment
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_file import NUMBER, require_shape


def episodes_from_lines(
    root: Path, info: Mapping[str, Any], cameras: Sequence[str]
) -> tuple[EpisodeRecord, ...]:
    """Of v2: one data file and one video per camera for each episode."""
    with about(root / INFO):
        size = chunks_size(info)
        fields = ("episode_chunk", "episode_index")
        data_path = FileTemplate(info["data_path"], "data_path", fields, fields[1])
        video_path = video_template(info, cameras, fields, fields[1])
    path = root / "meta/episodes.jsonl"
    shape = {"episode_index": int, "length": int, "tasks?": [str], f"{INITIAL_STATE}?": [NUMBER]}
    lines = _read_lines(path, shape, completed(info, "total_episodes"))
    rows = in_order(path, "episode_index", lines)
    records = []
    for i, row in enumerate(rows):
        place = {"episode_index": i, "episode_chunk": i // size}
        videos = {
            camera: VideoSegment(root / video_path.fill(**place, video_key=camera))
            for camera in cameras
        }
        tasks = tuple(row.get("tasks") or ())
        records.append(
            EpisodeRecord(
                *(row["length"], tasks, root / data_path.fill(**place), 0, videos),
                initial_state=_numbers(row.get(INITIAL_STATE)),
            )
        )
    return tuple(records)


def _numbers(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(map(float, values))


def tasks_from_lines(root: Path, info: Mapping[str, Any]) -> tuple[str, ...]:
    path = root / "meta/tasks.jsonl"
    shape = {"task_index": int, "task": str}
    rows = _read_lines(path, shape, completed(info, "total_tasks"))
    return tuple(row["task"] for row in in_order(path, "task_index", rows))


def _read_lines(
    path: Path, shape: Mapping[str, Any], first: int | None = None
) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; only so many if ``first`` is given."""
    try:
        lines = path.read_bytes().splitlines()[:first]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {REMEDY}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        with about(path, f"line {number}: "):
            row = json.loads(line)
            require_shape(row, shape)
        rows.append(row)
    return rows
