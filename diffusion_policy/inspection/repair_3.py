"""Repair a LeRobot dataset of version 3, whose files hold many episodes."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion_policy.dataset.stores.lerobot.statistics import as_lists
from diffusion_policy.dataset.stores.lerobot.tables_3 import (
    prefixed,
    rows_table,
    statistics_of_row,
    statistics_of_rows,
)
from diffusion_policy.inspection.repaired_columns import (
    counted_anew,
    differ,
    read_table,
    statistics_of_table,
    unreadable,
    write_table,
)
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_text import json_text

_PLACE = re.compile(r"chunk-(\d+)/file-(\d+)\.parquet$")


def repair_3(root: Path, info: dict[str, Any]) -> list[str]:
    """Repair the data set at ``root`` in place, and the counts of ``info``.

    Returns:
        What was changed, but for ``info``.

    Raises:
        UserError: something is damaged that is not at the end.
    """
    changed: list[str] = []
    tables = {p: read_table(p).to_pylist() for p in _whole(root, "meta/episodes", changed)}
    data = {path: read_table(path) for path in _whole(root, "data", changed)}
    lengths = {path: _lengths(path, table) for path, table in data.items()}
    listed = [row for rows in tables.values() for row in rows]
    recorded = [episode for counts in lengths.values() for episode in counts]
    n_kept = _first_gap(root, [row["episode_index"] for row in listed], recorded)
    _drop(changed, "is listed, but was never recorded", n_kept, len(listed))
    _drop(changed, "was recorded, but is not listed", n_kept, len(recorded))
    places = _repair_data(root, info, data, lengths, n_kept, changed)
    kept = {path: [r for r in rows if r["episode_index"] < n_kept] for path, rows in tables.items()}
    for path, rows in kept.items():
        before = [dict(row) for row in rows]
        for row in rows:
            _repair_row(row, *places[row["episode_index"]], changed)
        if before != rows or len(rows) < len(tables[path]):
            write_table(path, rows_table(rows)) if rows else path.unlink()
    rows = sorted(itertools.chain(*kept.values()), key=lambda row: row["episode_index"])
    _repair_statistics(root, rows, info, changed)
    tasks = root / "meta/tasks.parquet"
    counts = {
        "total_episodes": n_kept,
        "total_frames": sum(row["length"] for row in rows),
        "total_tasks": read_table(tasks).num_rows if tasks.is_file() else 0,
        "splits": {"train": f"0:{n_kept}"} if n_kept else {},
    }
    info.update({key: value for key, value in counts.items() if key in info or "total" in key})
    return changed


def _whole(root: Path, folder: str, changed: list[str]) -> list[Path]:
    """The parquet files of a folder, without a last one that was never finished."""
    paths = sorted(root.glob(f"{folder}/*/*.parquet"))
    for path in paths[:-1]:
        if told := unreadable(path):
            raise UserError(told)
    if paths and unreadable(paths[-1]):
        changed.append(f"{paths[-1].relative_to(root)}: was never finished, and is dropped")
        paths.pop().unlink()
    return paths


def _lengths(path: Path, table: Any) -> dict[int, int]:
    """Rows of each episode in a data file, in their order."""
    numbers = table.column("episode_index").to_pylist()
    found: dict[int, int] = {}
    for episode, rows in itertools.groupby(numbers):
        if not isinstance(episode, int) or episode in found:
            raise UserError(f"{path} has rows of episode {episode} in several places")
        found[episode] = len(list(rows))
    return found


def _first_gap(root: Path, listed: Sequence[int], recorded: Sequence[int]) -> int:
    """How many episodes, from 0, are both listed and recorded; nothing whole may follow them."""
    both = set(listed) & set(recorded)
    n_kept = next(i for i in itertools.count() if i not in both)
    if len(both) > n_kept:
        raise UserError(f"{root}: episode {n_kept} is missing, and whole episodes follow")
    if list(recorded) != sorted(recorded) or len(set(recorded)) < len(recorded):
        raise UserError(f"{root / 'data'} does not hold the episodes in their order")
    return n_kept


def _drop(changed: list[str], why: str, n_kept: int, n: int) -> None:
    changed += [f"episode {i}: dropped, since it {why}" for i in range(n_kept, n)]


def _repair_data(
    root: Path,
    info: Mapping[str, Any],
    data: Mapping[Path, Any],
    lengths: Mapping[Path, Mapping[int, int]],
    n_kept: int,
    changed: list[str],
) -> dict[int, tuple[dict[str, Any], dict[str, Any]]]:
    """Count the rows of kept episodes anew.

    Returns:
        By episode: what its row of ``meta/episodes`` should say, and its statistics.
    """
    found: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
    first_step = 0
    for path, table in data.items():
        kept = {episode: n for episode, n in lengths[path].items() if episode < n_kept}
        n_rows = sum(kept.values())
        counted = counted_anew(table.slice(0, n_rows), info["fps"], first_step, kept)
        if not n_rows:
            path.unlink()
        elif counted.num_rows < table.num_rows or not counted.equals(table):
            write_table(path, counted)
            changed.append(f"{path.relative_to(root)}: numbers of steps and timestamps")
        place = _PLACE.search(path.as_posix())
        if place is None:
            raise UserError(f"{path} is not called chunk-.../file-....parquet")
        row = 0
        for episode, n in kept.items():
            says = {
                "length": n,
                "dataset_from_index": first_step,
                "dataset_to_index": first_step + n,
                "data/chunk_index": int(place[1]),
                "data/file_index": int(place[2]),
            }
            statistics = statistics_of_table(counted.slice(row, n), info["features"])
            found[episode] = (says, statistics)
            first_step, row = first_step + n, row + n
    return found


def _repair_row(
    row: dict[str, Any], says: Mapping[str, Any], computed: Mapping[str, Any], changed: list[str]
) -> None:
    episode = row["episode_index"]
    wrong = [key for key, value in says.items() if row.get(key) != value]
    for key in wrong:
        changed.append(f"episode {episode}: {key} {row.get(key)} -> {says[key]}")
    row.update(says)
    stored = statistics_of_row(row)
    anew = [key for key, statistics in computed.items() if differ(stored.get(key), statistics)]
    for key in anew:
        row.update(prefixed(f"stats/{key}", as_lists(computed[key])))
    if anew:
        changed.append(f"episode {episode}: statistics of {', '.join(anew)}")


def _repair_statistics(
    root: Path, rows: Sequence[Mapping[str, Any]], info: Mapping[str, Any], changed: list[str]
) -> None:
    """Write ``meta/stats.json`` anew where it is not that of the episodes."""
    path = root / "meta/stats.json"
    try:
        stored = json.loads(path.read_bytes())
        stored = stored if isinstance(stored, dict) else {}
    except (OSError, ValueError, RecursionError):
        stored = {}
    computed = statistics_of_rows(rows) if rows else {}
    # Versions of lerobot differ in what they compute of images.
    numbers = [k for k, e in info["features"].items() if e["dtype"] not in ("image", "video")]
    wrong = [k for k, s in computed.items() if k not in stored]
    wrong += [
        k for k in numbers if k in computed and k in stored and differ(stored[k], computed[k])
    ]
    if wrong:
        told = ", ".join(sorted(wrong))
        changed.append(f"meta/stats.json: statistics of {told}")
        anew = {k: as_lists(computed[k]) for k in (*wrong, *(k for k in stored if k in computed))}
        path.write_text(json_text({**stored, **anew}, indent=4))
