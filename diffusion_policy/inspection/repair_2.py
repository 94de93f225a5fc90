"""Repair a LeRobot dataset of version 2, in which every episode has files of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av

from diffusion_policy.dataset.stores.lerobot.info import chunks_size, video_template
from diffusion_policy.dataset.stores.lerobot.statistics import as_lists, without_quantiles
from diffusion_policy.dataset.stores.lerobot.templates import FileTemplate
from diffusion_policy.inspection.repaired_columns import (
    counted_anew,
    differ,
    read_table,
    statistics_of_table,
    unreadable,
    write_table,
)
from diffusion_policy.util.errors import UserError

_EPISODES, _STATISTICS = "episodes", "episodes_stats"


def repair_2(root: Path, info: dict[str, Any]) -> list[str]:
    """Repair the data set at ``root`` in place, and the counts of ``info``.

    Returns:
        What was changed, but for ``info``.

    Raises:
        UserError: something is damaged that is not at the end.
    """
    changed: list[str] = []
    files = _Files(root, info)
    tables = {name: _lines(root, name, changed) for name in ("tasks", _EPISODES, _STATISTICS)}
    listed = {row.get("episode_index"): row for row in tables[_EPISODES]}
    stored = {row.get("episode_index"): row for row in tables[_STATISTICS]}
    n_kept = _whole_episodes(files, len(listed), changed)
    tasks = {row["task_index"]: row["task"] for row in tables["tasks"]}
    rows, statistics, first_step = [], [], 0
    for i in range(n_kept):
        path = files.data(i)
        table = read_table(path)
        length = table.num_rows
        counted = counted_anew(table, info["fps"], first_step, {i: length})
        if counted is not table:
            write_table(path, counted)
            changed.append(f"episode {i}: numbers of steps and timestamps counted anew")
        row = listed.get(i) or {"episode_index": i, "tasks": _tasks_of(counted, tasks)}
        if row.get("length") != length:
            changed.append(f"episode {i}: length {row.get('length')} -> {length}")
        rows.append({**row, "length": length})
        own = dict(stored.get(i, {}).get("stats") or {})
        computed = statistics_of_table(counted, info["features"])
        if wrong := [key for key, value in computed.items() if differ(own.get(key), value)]:
            own |= {key: as_lists(without_quantiles(computed[key])) for key in wrong}
            changed.append(f"episode {i}: statistics of {', '.join(wrong)}")
        statistics.append({"episode_index": i, "stats": own})
        first_step += length
    if rows != tables[_EPISODES]:
        _write_lines(root, _EPISODES, rows)
    if info["codebase_version"] == "v2.1" and statistics != tables[_STATISTICS]:
        _write_lines(root, _STATISTICS, statistics)
    counts = {
        "total_episodes": n_kept,
        "total_frames": first_step,
        "total_tasks": len(tasks),
        "total_videos": n_kept * len(files.cameras),
        "total_chunks": -(-n_kept // files.chunks_size),
        "splits": {"train": f"0:{n_kept}"} if n_kept else {},
    }
    info.update({key: value for key, value in counts.items() if key in info or "total" in key})
    return changed


class _Files:
    """Where the files of each episode lie."""

    def __init__(self, root: Path, info: Mapping[str, Any]) -> None:
        fields = ("episode_chunk", "episode_index")
        self.root, self.chunks_size = root, chunks_size(info)
        features = info["features"].items()
        self.cameras = [key for key, entry in features if entry["dtype"] == "video"]
        self._data = FileTemplate(info["data_path"], "data_path", fields, fields[1])
        self._video = video_template(info, self.cameras, fields, fields[1])

    def _place(self, episode: int) -> dict[str, int]:
        return {"episode_index": episode, "episode_chunk": episode // self.chunks_size}

    def data(self, episode: int) -> Path:
        return self.root / self._data.fill(**self._place(episode))

    def videos(self, episode: int) -> list[Path]:
        place = self._place(episode)
        return [self.root / self._video.fill(**place, video_key=key) for key in self.cameras]

    def damage(self, episode: int) -> str | None:
        """Why an episode cannot be read; None if it can."""
        if not self.data(episode).is_file():
            return f"{self.data(episode)} is missing"
        return unreadable(self.data(episode)) or next(
            filter(None, map(_unreadable_video, self.videos(episode))), None
        )


def _unreadable_video(path: Path) -> str | None:
    if not path.is_file():
        return f"{path} is missing"
    try:
        with av.open(str(path)) as container:
            next(container.decode(video=0))
    except (OSError, av.FFmpegError, StopIteration, IndexError) as error:
        return f"{path} cannot be decoded ({error or 'it is empty'})"
    return None


def _whole_episodes(files: _Files, n_listed: int, changed: list[str]) -> int:
    """How many episodes are whole; removes what is left of those behind them."""
    n_files = 0
    while files.data(n_files).is_file():
        n_files += 1
    n = max(n_listed, n_files)
    damage = {i: told for i in range(n) if (told := files.damage(i))}
    n_kept = min(damage, default=n)
    if n_kept < n - len(damage):
        raise UserError(f"{damage[n_kept]}, and whole episodes follow")
    for i in range(n_kept, n):
        told = damage[i].replace(f"{files.root}/", "")
        changed.append(f"episode {i}: dropped, since {told}")
        for path in (files.data(i), *files.videos(i)):
            path.unlink(missing_ok=True)
    return n_kept


def _lines(root: Path, name: str, changed: list[str]) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, without a last line that was never finished."""
    path = root / f"meta/{name}.jsonl"
    if not path.is_file():
        return []
    lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("no object")
        except (ValueError, RecursionError) as error:
            if number < len(lines):
                raise UserError(f"{path} is damaged in line {number} ({error})") from None
            changed.append(f"meta/{name}.jsonl: its last line was never finished, and is dropped")
            _write_lines(root, name, rows)
        else:
            rows.append(row)
    return rows


def _write_lines(root: Path, name: str, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (root / f"meta/{name}.jsonl").write_text(text, encoding="utf-8")


def _tasks_of(table: Any, tasks: Mapping[int, str]) -> list[str]:
    numbers = dict.fromkeys(table.column("task_index").to_pylist())
    if unknown := [number for number in numbers if number not in tasks]:
        raise UserError(f"task {unknown[0]} of an episode is not listed in meta/tasks.jsonl")
    return [tasks[number] for number in numbers]
