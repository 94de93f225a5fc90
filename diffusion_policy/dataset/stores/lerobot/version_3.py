"""Episodes and tasks of LeRobot datasets of version 3, in parquet files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion_policy.dataset.stores.lerobot.checks import REMEDY, about, in_order
from diffusion_policy.dataset.stores.lerobot.episode_record import EpisodeRecord
from diffusion_policy.dataset.stores.lerobot.info import (
    INFO,
    INITIAL_STATE,
    completed,
    video_template,
)
from diffusion_policy.dataset.stores.lerobot.parquet import (
    open_parquet,
    read_columns,
    whole_numbers,
)
from diffusion_policy.dataset.stores.lerobot.templates import FileTemplate
from diffusion_policy.dataset.video.segment import VideoSegment
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_file import NUMBER, require_shape


def episodes_from_parquet(
    root: Path, info: Mapping[str, Any], cameras: Sequence[str]
) -> tuple[EpisodeRecord, ...]:
    """Of v3: many episodes a file, one after another."""
    with about(root / INFO):
        fields = ("chunk_index", "file_index")
        data_path = FileTemplate(info["data_path"], "data_path", fields)
        video_path = video_template(info, cameras, fields)
    rows = _episode_rows(root, cameras, completed(info, "total_episodes"))
    records = []
    n_steps = 0
    steps_of_file: dict[Path, int] = {}
    for i, row in enumerate(rows):
        bounds = (row["dataset_from_index"], row["dataset_to_index"])
        if bounds != (n_steps, n_steps + row["length"]):
            raise UserError(
                f"{root / 'meta/episodes'} says that episode {i} has {row['length']} steps, "
                f"{bounds[0]} to {bounds[1]}, but the one before it ends at {n_steps}; {REMEDY}"
            )
        n_steps = bounds[1]
        data_file = root / data_path.fill(
            chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
        )
        videos = {camera: _segment(root, video_path, camera, row, i) for camera in cameras}
        first_row = steps_of_file.get(data_file, 0)
        steps_of_file[data_file] = first_row + row["length"]
        records.append(
            EpisodeRecord(
                *(row["length"], tuple(row["tasks"]), data_file, first_row, videos),
                initial_state=None if row[INITIAL_STATE] is None else tuple(row[INITIAL_STATE]),
            )
        )
    return tuple(records)


def _episode_rows(
    root: Path, cameras: Sequence[str], first: int | None = None
) -> list[dict[str, Any]]:
    """The rows of ``meta/episodes``, without statistics; only so many if ``first`` is given."""
    paths = sorted(root.glob("meta/episodes/*/*.parquet"))
    if not paths:
        raise UserError(f"{root} has no meta/episodes/*/*.parquet; {REMEDY}")
    numbers = [
        *("episode_index", "length", "data/chunk_index", "data/file_index"),
        *("dataset_from_index", "dataset_to_index"),
        *(f"videos/{camera}/{part}_index" for camera in cameras for part in ("chunk", "file")),
    ]
    times = [f"videos/{camera}/from_timestamp" for camera in cameras]
    rows: list[dict[str, Any]] = []
    for path in paths:
        optional = [c for c in (INITIAL_STATE,) if c in open_parquet(path).schema_arrow.names]
        table = read_columns(path, [*numbers, *times, "tasks", *optional])
        for column in numbers:
            if any(not 0 <= value < 2**62 for value in whole_numbers(path, table, column)):
                raise UserError(f"{path} holds a {column!r} out of range; {REMEDY}")
        found = table.to_pylist()
        for row in found:
            row["tasks"] = row["tasks"] or []
            with about(path, "tasks: "):
                require_shape(row["tasks"], [str])
            with about(path, f"{INITIAL_STATE}: "):
                if row.setdefault(INITIAL_STATE) is not None:
                    require_shape(row[INITIAL_STATE], [NUMBER])
        rows += found
    if first is not None:
        rows = [row for row in rows if row["episode_index"] < first]
    return in_order(root / "meta/episodes", "episode_index", rows)


def _segment(
    root: Path, template: FileTemplate, camera: str, row: Mapping[str, Any], episode: int
) -> VideoSegment:
    prefix = f"videos/{camera}/"
    start = row[f"{prefix}from_timestamp"]
    if not isinstance(start, float) or not 0 <= start < 1e9:
        raise UserError(
            f"{root / 'meta/episodes'} says that episode {episode} of {camera!r} starts at "
            f"{start} s; {REMEDY}"
        )
    place = {part: row[prefix + part] for part in ("chunk_index", "file_index")}
    return VideoSegment(root / template.fill(**place, video_key=camera), start)


def tasks_from_parquet(root: Path, info: Mapping[str, Any]) -> tuple[str, ...]:
    """The table of tasks; versions 0.4 of lerobot left its column of texts without a name."""
    path = root / "meta/tasks.parquet"
    names = open_parquet(path).schema_arrow.names
    texts = "task" if "task" in names else "__index_level_0__"
    table = read_columns(path, ["task_index", texts])
    whole_numbers(path, table, "task_index")
    first = completed(info, "total_tasks")
    found = [row for row in table.to_pylist() if first is None or row["task_index"] < first]
    rows = in_order(path, "task_index", found)
    with about(path):
        require_shape([row[texts] for row in rows], [str])
    return tuple(row[texts] for row in rows)
