"""Read columns of all steps of a LeRobot dataset from its parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffusion_policy.dataset.stores.lerobot.checks import REMEDY
from diffusion_policy.dataset.stores.lerobot.features import Feature
from diffusion_policy.dataset.stores.lerobot.metadata import LeRobotMetadata
from diffusion_policy.dataset.stores.lerobot.parquet import (
    damaged,
    open_parquet,
    require_columns,
)
from diffusion_policy.dataset.video.frame_table import TOLERANCE_S
from diffusion_policy.util.errors import UserError

_BATCH = 32  # rows of pictures in memory at a time


def data_files(metadata: LeRobotMetadata) -> list[tuple[Path, int, int]]:
    """The parquet files in the order of the steps, each with the range of steps that it holds.

    Raises:
        UserError: a file's episodes do not follow one another.
    """
    files: list[tuple[Path, int, int]] = []
    start = 0
    for path, episodes in groupby(metadata.episodes, key=lambda episode: episode.data_file):
        stop = start + sum(episode.length for episode in episodes)
        files.append((path, start, stop))
        start = stop
    paths = [path for path, _, _ in files]
    if len(set(paths)) < len(paths):
        raise UserError(
            f"{metadata.root / 'meta'} sends episodes back to a data file that other episodes "
            f"have followed; {REMEDY}"
        )
    return files


def read_steps(metadata: LeRobotMetadata, columns: Sequence[str]) -> Iterator[tuple[Path, Any]]:
    """Yield each data file with a ``pyarrow.Table`` of these columns, one row a step.

    Raises:
        UserError: a file is missing or damaged, has no such column, or other rows than the
            episodes have steps.
    """
    for path, start, stop in data_files(metadata):
        file = _open(path, columns, stop - start)
        try:
            table = file.read(columns=list(columns), use_threads=False)
        except Exception as error:  # pyarrow raises all kinds
            raise damaged(path, error) from error
        yield path, table.select(list(columns))


def read_pictures(metadata: LeRobotMetadata, key: str) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the encoded pictures of all steps, a few at a time, each with the first one's step.

    Raises:
        UserError: see :func:`read_steps`; or a picture is missing.
    """
    for path, start, stop in data_files(metadata):
        file = _open(path, [key], stop - start)
        try:
            for batch in file.iter_batches(_BATCH, columns=[key], use_threads=False):
                stored = batch.column(batch.schema.names.index(key)).to_pylist()
                pictures = [_picture(path, key, entry) for entry in stored]
                yield start, pictures
                start += len(pictures)
        except UserError:
            raise
        except Exception as error:
            raise damaged(path, error) from error


def check_steps(metadata: LeRobotMetadata) -> np.ndarray:
    """The ``task_index`` (N,) of all steps, after a check of the automatic columns.

    Raises:
        UserError: steps, episodes or times do not count on as they should.
    """
    columns = ["timestamp", "frame_index", "episode_index", "index", "task_index"]
    read = [
        (path, {name: _automatic(path, table, name) for name in columns})
        for path, table in read_steps(metadata, columns)
    ]
    lengths = np.array([episode.length for episode in metadata.episodes])
    frames = np.concatenate([np.arange(length) for length in lengths]) if len(lengths) else lengths
    expected = {
        "index": np.arange(len(frames)),
        "episode_index": np.repeat(np.arange(len(lengths)), lengths),
        "frame_index": frames,
    }
    start = 0
    for path, found in read:
        steps = slice(start, start + len(found["index"]))
        for name, values in expected.items():
            _require_equal(path, name, found[name], values[steps])
        _check_times(path, found["timestamp"], frames[steps], metadata.fps)
        _check_tasks(path, found["task_index"], len(metadata.tasks))
        start = steps.stop
    return np.concatenate([found["task_index"] for _, found in read]).astype(np.int64)


def recorded_numbers(metadata: LeRobotMetadata, key: str) -> np.ndarray:
    """All steps (N, *shape) of a feature of numbers, in the type in which they were recorded.

    Raises:
        UserError: see :func:`read_steps` and :func:`as_numbers`.
    """
    feature = metadata.features[key]
    files = read_steps(metadata, [key])
    parts = [as_numbers(p, t.column(key), key, feature, feature.dtype) for p, t in files]
    return np.concatenate(parts)


def as_numbers(
    path: Path, column: Any, key: str, feature: Feature, dtype: npt.DTypeLike = np.float32
) -> np.ndarray:
    """(n, *shape) of a column of numbers.

    Raises:
        UserError: it holds something else, another shape, or nothing somewhere.
    """
    import pyarrow as pa

    values = column.combine_chunks()
    n = len(values)
    axes: list[int] = []
    while _is_list(values.type):
        _require_full(path, key, values)
        axes.append(_length_of_lists(path, key, values))
        values = values.flatten()
    _require_full(path, key, values)
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    if not any(is_kind(values.type) for is_kind in kinds):
        raise UserError(f"{path} holds {values.type} in {key!r}, where numbers belong; {REMEDY}")
    shape = tuple(axes) or (1,)
    if n and shape != feature.shape:
        raise UserError(
            f"{path} holds {list(shape)} a step in {key!r}, but meta/info.json says "
            f"{list(feature.shape)}; correct it there"
        )
    numbers = values.to_numpy(zero_copy_only=False)
    return numbers.astype(dtype, copy=False).reshape(n, *feature.shape)


def as_texts(path: Path, column: Any, key: str) -> list[str]:
    """The texts of a column.

    Raises:
        UserError: it holds something else, or nothing somewhere.
    """
    texts = column.to_pylist()
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{path} holds other things than texts in {key!r}; {REMEDY}")
    return texts


def _open(path: Path, columns: Sequence[str], n_rows: int) -> Any:
    file = open_parquet(path)
    require_columns(path, file, columns)
    if file.metadata.num_rows != n_rows:
        raise UserError(
            f"{path} has {file.metadata.num_rows} rows, but its episodes have {n_rows} steps by "
            f"meta/; {REMEDY}"
        )
    return file


def _picture(path: Path, key: str, stored: object) -> bytes:
    content = stored.get("bytes") if isinstance(stored, dict) else stored
    if isinstance(content, bytes):
        return content
    raise UserError(
        f"{path} holds no picture in {key!r} at some step, or only the name of a file; convert the "
        "data set with its pictures embedded"
    )


def _automatic(path: Path, table: Any, name: str) -> np.ndarray:
    """(n,) values of an automatic column: whole numbers, or times."""
    import pyarrow as pa

    column = table.column(name)
    if name == "timestamp":
        return as_numbers(path, column, name, Feature("float32", (1,)))[:, 0]
    _require_full(path, name, column)
    if not pa.types.is_integer(column.type):
        raise UserError(f"{path} holds {column.type} in {name!r}, not whole numbers; {REMEDY}")
    return column.to_numpy()


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _length_of_lists(path: Path, key: str, values: Any) -> int:
    import pyarrow.compute as pc

    lengths = pc.unique(pc.list_value_length(values)).to_pylist()
    if len(lengths) > 1:
        raise UserError(
            f"{path} holds lists of {lengths[0]} and of {lengths[1]} numbers in {key!r}; {REMEDY}"
        )
    return lengths[0] if lengths else 0


def _require_full(path: Path, key: str, values: Any) -> None:
    if values.null_count:
        raise UserError(f"{path} holds nothing at some step in {key!r}; {REMEDY}")


def _require_equal(path: Path, name: str, found: np.ndarray, expected: np.ndarray) -> None:
    wrong = np.flatnonzero(found != expected)
    if wrong.size:
        row = int(wrong[0])
        raise UserError(
            f"{path} has {name} {found[row]} in row {row}, where {expected[row]} belongs: steps "
            f"are missing or out of order; {REMEDY}"
        )


def _check_times(path: Path, times: np.ndarray, frames: np.ndarray, fps: float) -> None:
    expected = frames / fps
    # Times are float32, whose neighbours lie 6e-5 s apart after a quarter of an hour.
    allowed = TOLERANCE_S + np.spacing(times.astype(np.float32))
    wrong = np.flatnonzero(~(np.abs(times - expected) <= allowed))
    if wrong.size:
        row = int(wrong[0])
        raise UserError(
            f"{path} has timestamp {times[row]} in row {row}, but step {frames[row]} at {fps} "
            f"steps per second is at {expected[row]:.4f} s; {REMEDY}"
        )


def _check_tasks(path: Path, tasks: np.ndarray, n_tasks: int) -> None:
    wrong = np.flatnonzero((tasks < 0) | (tasks >= n_tasks))
    if wrong.size:
        raise UserError(
            f"{path} has task_index {tasks[wrong[0]]} in row {wrong[0]}, but {n_tasks} tasks are "
            f"listed in meta/; {REMEDY}"
        )
