"""Copy the steps of one array to another, in blocks, as fast as they decompress."""

from __future__ import annotations

import asyncio
import math
from types import EllipsisType
from typing import Any

import numpy as np
import zarr
from tqdm import tqdm
from zarr.core.sync import sync

from diffusion_policy.util.errors import UserError, one_line

# Decoded bytes per block: bounds the memory of a conversion; larger blocks are not faster.
BLOCK_BYTES = 16 * 1024 * 1024
_MOST_SECONDS = 10  # for reads that go on after one has failed


def read_steps(
    source: np.ndarray | zarr.Array, rows: slice | EllipsisType, name: str
) -> np.ndarray:
    """The ``rows`` of ``source``, ``...`` for all; views of memory. ``name`` is for messages.

    Raises:
        UserError: a chunk does not decode.
    """
    try:
        return np.asarray(source[rows])
    except Exception as error:  # decoders of many libraries raise what they like
        sync(_finish_others())
        where = f" in rows {rows.start} to {rows.stop}" if isinstance(rows, slice) else ""
        raise UserError(
            f"{name} cannot be decoded{where} ({one_line(error)}): the file is damaged; fetch or "
            "write it again"
        ) from error


def write_steps(target: Any, rows: slice, values: np.ndarray, name: str) -> None:
    """Set the ``rows`` of ``target``; ``name`` is for messages.

    Raises:
        UserError: a stored chunk that these rows share with others does not decode.
        OSError: the disk is full, or cannot be written.
    """
    try:
        target[rows] = values
    except Exception as error:
        sync(_finish_others())
        if isinstance(error, OSError):
            raise
        raise UserError(
            f"{name} cannot be decoded around row {rows.start} ({one_line(error)}): the file is "
            "damaged; fetch or write it again"
        ) from error


async def _finish_others() -> None:
    """Wait for what zarr does to other chunks at the same time.

    A process that ends before it would print a traceback of each.
    """
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others, timeout=_MOST_SECONDS)


def copy_steps(
    source: np.ndarray | zarr.Array, target: np.ndarray | zarr.Array, n_steps: int, name: str
) -> None:
    """Write the first ``n_steps`` rows of ``source`` (N, ...) to ``target``, which has that many.

    Where the types differ, values are converted; ``name`` is for messages and the progress bar.

    Raises:
        UserError: a chunk does not decode, or a value does not survive the conversion.
    """
    block = _block_length(source, target)
    with tqdm(
        total=n_steps, desc=f"Copying {name}", unit=" steps", delay=2, disable=None
    ) as progress:
        for start in range(0, n_steps, block):
            rows = slice(start, min(start + block, n_steps))
            values = read_steps(source, rows, name)
            if not np.can_cast(source.dtype, target.dtype, "same_kind"):
                values = _convert(values, target.dtype, name)
            write_steps(target, rows, values, name)
            progress.update(rows.stop - rows.start)


def _block_length(source: np.ndarray | zarr.Array, target: np.ndarray | zarr.Array) -> int:
    """Steps per block: whole chunks of the target, which are then written once, or the source."""
    step_bytes = max(1, math.prod(source.shape[1:]) * source.dtype.itemsize)
    chunked = [array.chunks[0] for array in (target, source) if isinstance(array, zarr.Array)]
    chunk = chunked[0] if chunked else 1
    longest = max([*chunked, BLOCK_BYTES // step_bytes])
    return chunk * max(1, longest // chunk)


def _convert(values: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        converted = values.astype(dtype)
    kept = converted.astype(values.dtype) == values
    if not kept.all():
        lost = values[~kept].ravel()[0]
        raise UserError(f"{name} holds {lost}, which {dtype} cannot: keep its type {values.dtype}")
    return converted
