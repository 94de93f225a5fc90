"""Arrays that are expensive to make, kept on disk under a hash of what they were made from."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from diffusion_policy.util.atomic_file import replacing


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


def stored_bytes(path: str | Path) -> bytes:
    """A digest of everything stored at a path: a file, or a folder's with their names."""
    path = Path(path)
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        digest.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.digest()


def cached_array(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.typing.DTypeLike,
    fill: Callable[[np.memmap], None],
) -> np.ndarray:
    """The array stored at ``path``, made by ``fill`` (which writes into it) on first use.

    The file appears under its name only when it is complete. It is mapped into memory, so opening
    it costs nothing and several processes share its pages.
    """
    if not path.exists():
        with replacing(path) as partial:
            array = np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape)
            fill(array)
            array.flush()
    return np.load(path, mmap_mode="r")


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
