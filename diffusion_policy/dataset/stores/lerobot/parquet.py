"""Columns of a parquet file that may be damaged or hostile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_policy.util.errors import UserError, one_line
from diffusion_policy.util.extras import import_extra

_ALWAYS_ALLOWED = 2**30  # bytes
_MOST_EXPANSION = 100
"""Numbers that hardly change shrink much, but beside them lie some that do change."""


def open_parquet(path: Path) -> Any:
    """A ``pyarrow.parquet.ParquetFile``.

    Raises:
        UserError: pyarrow is missing, the file is missing, is not whole, or would grow to a size
            that no data set has.
    """
    parquet = import_extra("pyarrow.parquet", "lerobot", "reading a LeRobot dataset")
    try:
        file = parquet.ParquetFile(path, memory_map=True)
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        n_values = sum(
            max(group.column(i).num_values, group.num_rows)
            for group in groups
            for i in range(group.num_columns)
        )
        size = max(8 * n_values, sum(group.total_byte_size for group in groups))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: fetch the data set again") from None
    except Exception as error:  # pyarrow raises all kinds
        raise damaged(path, error) from error
    packed = path.stat().st_size
    if size > _ALWAYS_ALLOWED + _MOST_EXPANSION * packed:
        raise UserError(
            f"{path} would grow from {packed} to {size} bytes, which no data set does: do not use "
            "it"
        )
    return file


def read_columns(path: Path, columns: Sequence[str]) -> Any:
    """A ``pyarrow.Table`` of these columns.

    Raises:
        UserError: see :func:`open_parquet`; or a column is missing.
    """
    file = open_parquet(path)
    require_columns(path, file, columns)
    try:
        return file.read(columns=list(columns), use_threads=False).select(list(columns))
    except Exception as error:
        raise damaged(path, error) from error


def require_columns(path: Path, file: Any, columns: Sequence[str]) -> None:
    """Check that an open parquet file has these columns, each once.

    Raises:
        UserError: names the first that it does not have.
    """
    names = file.schema_arrow.names
    for column in columns:
        if names.count(column) != 1:
            raise UserError(
                f"{path} has {'no' if column not in names else 'more than one'} column "
                f"{column[:80]!r}: fetch or write the data set again"
            )


def whole_numbers(path: Path, table: Any, column: str) -> list[int]:
    """The values of a column of whole numbers.

    Raises:
        UserError: it holds something else, or nothing somewhere.
    """
    values = table.column(column).to_pylist()
    if any(type(value) is not int for value in values):
        raise UserError(
            f"{path} holds other things than whole numbers in {column!r}: fetch or write the data "
            "set again"
        )
    return values


def damaged(path: Path, error: Exception) -> UserError:
    """The error of a parquet file that cannot be read."""
    return UserError(
        f"{path} is no whole parquet file ({one_line(error)[:200]}): its writing was interrupted, "
        "or the copy is incomplete; fetch it again, or repair the data set with python -m "
        "diffusion_policy.scripts.inspect_dataset --repair"
    )
