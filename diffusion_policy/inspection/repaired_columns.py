"""The columns of a LeRobot dataset that follow from the others, and statistics of the others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.dataset.stores.lerobot.parquet import open_parquet
from diffusion_policy.dataset.stores.lerobot.statistics import Statistics, vector_statistics
from diffusion_policy.dataset.video.frame_table import TOLERANCE_S
from diffusion_policy.util.errors import UserError, one_line
from diffusion_policy.util.extras import import_extra

BASIC = ("min", "max", "mean", "std", "count")
"""Statistics that all versions of lerobot compute alike."""


def unreadable(path: Path) -> str | None:
    """Why a parquet file cannot be read; None if it can."""
    try:
        open_parquet(path).read(use_threads=False)
    except UserError as error:
        return str(error)
    except Exception as error:  # pyarrow raises all kinds
        return f"{path} is damaged ({one_line(error)})"
    return None


def read_table(path: Path) -> Any:
    """All columns of a parquet file that is known to be whole."""
    parquet = import_extra("pyarrow.parquet", "lerobot", "repairing a LeRobot dataset")
    return parquet.ParquetFile(path).read(use_threads=False)


def write_table(path: Path, table: Any) -> None:
    """Replace a parquet file of the copy."""
    parquet = import_extra("pyarrow.parquet", "lerobot", "repairing a LeRobot dataset")
    parquet.write_table(table, path)


def counted_anew(table: Any, fps: float, first_step: int, lengths: Mapping[int, int]) -> Any:
    """The table with the numbers and times that its rows should have; the same if they had.

    Args:
        first_step: of the file, among all steps.
        lengths: by episode, the rows of it in the table, in their order.

    Raises:
        UserError: steps are missing inside an episode, so that later rows belong to other frames.
    """
    import pyarrow as pa

    _refuse_gaps(table, fps, lengths)

    frames = np.concatenate([np.arange(n) for n in lengths.values()]) if lengths else np.arange(0)
    expected = {
        "frame_index": frames,
        "episode_index": np.repeat(list(lengths), list(lengths.values())),
        "index": first_step + np.arange(len(frames)),
        "timestamp": (frames / fps).astype(np.float32),
    }
    for name, values in expected.items():
        place = table.schema.get_field_index(name)
        if place < 0:
            continue
        stored = np.array(table.column(name).to_pylist(), float)
        allowed = 0.0
        if name == "timestamp":
            # Neighbours of float32 lie further apart after a quarter of an hour.
            allowed = TOLERANCE_S + np.spacing(values[-1:].max(initial=0))
        if not np.all(np.abs(stored - values) <= allowed):
            field = table.schema.field(place)
            table = table.set_column(place, field, pa.array(values).cast(field.type))
    return table


def _refuse_gaps(table: Any, fps: float, lengths: Mapping[int, int]) -> None:
    """Refuse a table of which ``frame_index`` and ``timestamp`` both leave steps out at a row."""
    columns = {"frame_index": 1.0, "timestamp": fps}
    known = [name for name in columns if name in table.schema.names]
    starts = np.cumsum([0, *lengths.values()])
    skipped = np.full(starts[-1], bool(known))
    for name in known:
        steps = np.array(table.column(name).to_pylist(), float) * columns[name]
        skipped &= np.diff(steps, prepend=steps[:1]) > 1.5
    skipped[starts[:-1]] = False  # another episode begins
    if skipped.any():
        row = int(np.argmax(skipped))
        place = int(np.searchsorted(starts, row, side="right")) - 1
        raise UserError(
            f"episode {list(lengths)[place]} lacks steps before row {row - starts[place]}, where "
            f"{' and '.join(known)} jump; fetch or record it again"
        )


def statistics_of_table(table: Any, features: Mapping[str, Any]) -> dict[str, Statistics]:
    """Statistics of the columns of numbers."""
    found = {}
    for key, entry in features.items():
        if key in table.schema.names and entry["dtype"] not in ("image", "video", "string"):
            values = np.array(table.column(key).to_pylist())
            if values.dtype.kind in "biuf" and len(values):
                found[key] = vector_statistics(values)
    return found


def differ(stored: Mapping[str, Any] | None, computed: Statistics) -> bool:
    """Whether stored statistics are missing, or not those of the values."""
    if stored is None:
        return True
    for name in BASIC:
        try:
            values = np.asarray(stored.get(name), float).reshape(-1)
        except (TypeError, ValueError):
            return True
        expected = computed[name].reshape(-1)
        scale = np.abs(np.concatenate([computed["min"].ravel(), computed["max"].ravel()])).max()
        if values.shape != expected.shape or not np.allclose(
            values, expected, rtol=1e-4, atol=1e-4 * scale + 1e-9
        ):
            return True
    return False
