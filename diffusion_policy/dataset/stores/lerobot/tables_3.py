"""The parquet tables in ``meta/`` of LeRobot v3.0, statistics included."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion_policy.dataset.stores.lerobot.parquet import damaged, open_parquet
from diffusion_policy.dataset.stores.lerobot.statistics import (
    Statistics,
    aggregate_features,
    as_arrays,
)
from diffusion_policy.util.extras import import_extra

META_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


def tasks_table(tasks: Sequence[str]) -> Any:
    """``tasks.parquet``, whose column ``task`` is the index of a frame of pandas."""
    pa = import_extra("pyarrow", "lerobot", "writing a LeRobot dataset")
    columns = {"task_index": range(len(tasks)), "task": tasks}
    described = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": stored}
        | {"metadata": None}
        for name, kind, stored in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": described}
    schema = pa.schema(
        [("task_index", pa.int64()), ("task", pa.string())],
        metadata={"pandas": json.dumps(pandas | {"pandas_version": "2.0.0"})},
    )
    arrays = [pa.array(list(columns[name]), schema.field(name).type) for name in columns]
    return pa.Table.from_arrays(arrays, schema=schema)


def rows_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """``meta/episodes`` of these rows; a statistic that some lack is null there."""
    pa = import_extra("pyarrow", "lerobot", "writing a LeRobot dataset")
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    return pa.table({name: pa.array(values, _type(pa, name)) for name, values in columns.items()})


def _type(pa: Any, name: str) -> Any:
    """The type of a column where its values do not tell."""
    if name == "tasks":
        return pa.list_(pa.string())
    return pa.list_(pa.float64()) if name == "initial_state" else None


def episode_rows(root: Path) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """Each file of ``meta/episodes`` with its rows, all columns."""
    for path in sorted(root.glob("meta/episodes/*/*.parquet")):
        file = open_parquet(path)
        try:
            rows = file.read(use_threads=False).to_pylist()
        except Exception as error:  # pyarrow raises all kinds
            raise damaged(path, error) from error
        yield path, rows


def statistics_of_row(row: Mapping[str, Any]) -> dict[str, Statistics]:
    """By feature, what a row of ``meta/episodes`` tells."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in row.items():
        if name.startswith("stats/") and value is not None:
            key, _, statistic = name.removeprefix("stats/").rpartition("/")
            found.setdefault(key, {})[statistic] = value
    return {key: as_arrays(lists) for key, lists in found.items()}


def statistics_of_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Statistics]:
    """Of all the episodes."""
    return aggregate_features(statistics_of_row(row) for row in rows)


def prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values under ``prefix/key``."""
    return {f"{prefix}/{key}": value for key, value in values.items()}
