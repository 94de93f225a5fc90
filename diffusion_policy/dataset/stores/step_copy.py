"""Copy the steps of one array to another, in blocks, as fast as they decompress."""

from __future__ import annotations

import math
from types import EllipsisType

import numpy as np
import zarr
from tqdm import tqdm

from diffusion_policy.util.errors import UserError, one_line

# Decoded bytes per block: bounds the memory of a conversion; larger blocks are not faster.
BLOCK_BYTES = 16 * 1024 * 1024


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
        where = f" in rows {rows.start} to {rows.stop}" if isinstance(rows, slice) else ""
        raise UserError(
            f"{name} cannot be decoded{where} ({one_line(error)}): the file is damaged; fetch or "
            "write it again"
        ) from error


def copy_steps(
    source: np.ndarray | zarr.Array, target: np.ndarray | zarr.Array, n_steps: int, name: str
) -> None:
    """Write the first ``n_steps`` rows of ``source`` (N, ...) to ``target``, which has that many.

    Where the types differ, values are converted; ``name`` is for messages and the progress bar.

    Raises:
        UserError: a chunk does not decode, or a value does not survive the conversion.
    """
    block = _block_length(source, target)
    with tqdm(total=n_steps, desc=f"Copying {name}", unit=" steps", delay=2) as progress:
        for start in range(0, n_steps, block):
            rows = slice(start, min(start + block, n_steps))
            values = read_steps(source, rows, name)
            if not np.can_cast(source.dtype, target.dtype, "same_kind"):
                values = _convert(values, target.dtype, name)
            target[rows] = values
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
