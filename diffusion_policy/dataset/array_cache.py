"""Arrays that are expensive to make, kept on disk under a hash of what they were made from."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from diffusion_policy.util.atomic_file import replacing
from diffusion_policy.util.errors import writing


def content_hash(parts: Iterable[bytes | np.ndarray]) -> str:
    """16 hex digits over the given bytes and arrays (values, shape and dtype)."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(part)
    return digest.hexdigest()[:16]


def cached_array(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.typing.DTypeLike,
    fill: Callable[[np.memmap], None],
) -> np.ndarray:
    """The array stored at ``path``, made by ``fill`` (which writes into it) on first use.

    The file appears under its name only when it is complete; one that was cut since is made again.
    It is mapped into memory, so opening it costs nothing and several processes share its pages.

    Raises:
        UserError: the disk has no room for it, or the folder cannot be written.
    """
    with suppress(OSError, ValueError):
        found = np.load(path, mmap_mode="r")
        if (found.shape, found.dtype) == (shape, np.dtype(dtype)):
            return found
    with writing(path), replacing(path) as partial:
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape)
        _reserve(partial)
        fill(array)
        array.flush()
    return np.load(path, mmap_mode="r")


def _reserve(path: Path) -> None:
    """Claim the space of a file that is only as long as it will be.

    A page that finds no room on the disk later kills the process by SIGBUS.

    Raises:
        OSError: there is no room.
    """
    size = path.stat().st_size
    with path.open("rb+") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif shutil.disk_usage(path.parent).free < size:  # macOS
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_ahead(array: np.ndarray, rows: np.ndarray) -> None:
    """Ask the system for rows of a mapped array all at once, before a copy needs one by one.

    A copy alone waits for the disk at every row, and each time for megabytes around it.
    """
    if not isinstance(array, np.memmap) or not hasattr(mmap, "MADV_WILLNEED"):
        return
    wanted = np.unique(rows)
    last_of_run = np.diff(wanted, append=-1) != 1
    first_of_run = np.roll(last_of_run, 1)
    start_of_map = array.offset % mmap.ALLOCATIONGRANULARITY
    begins = start_of_map + wanted[first_of_run] * array.strides[0]
    ends = start_of_map + (wanted[last_of_run] + 1) * array.strides[0]
    begins -= begins % mmap.PAGESIZE
    with suppress(OSError):  # a mere hint, and not every file system takes it
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
            array._mmap.madvise(mmap.MADV_WILLNEED, begin, end - begin)  # type: ignore[attr-defined]
