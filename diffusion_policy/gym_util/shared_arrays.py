"""Named numpy arrays in one block of memory that several processes see."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Mapping

import numpy as np

Fields = Mapping[str, tuple[tuple[int, ...], str]]
"""Name -> (shape, dtype string), the whole description of a block."""

_CACHE_LINE = 64  # bytes; arrays written by different processes should not share one


class SharedArrays(dict[str, np.ndarray]):
    """The arrays of ``fields``, zero at first, shared with every process that maps the same block.

    Args:
        fields: name -> (shape, dtype); must be the same in every process.
        fd: descriptor of the block, see :func:`create_block`. The block grows where it is smaller
            than the arrays.
    """

    def __init__(self, fields: Fields, fd: int) -> None:
        starts, size = [], 0
        for shape, dtype in fields.values():
            starts.append(size)
            n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
            size += math.ceil(n_bytes / _CACHE_LINE) * _CACHE_LINE
        if os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)
        memory = mmap.mmap(fd, size)
        super().__init__(
            (name, np.ndarray(shape, dtype, buffer=memory, offset=start))
            for (name, (shape, dtype)), start in zip(fields.items(), starts, strict=True)
        )


def create_block() -> int:
    """Descriptor of an empty block of memory, to hand to child processes (``pass_fds``).

    The block has no name in the file system: it is gone when the last process that maps it ends,
    however that process ends, so nothing can be left behind.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create("shared_arrays")
    with tempfile.TemporaryFile() as file:  # unlinked from the start; macOS has no memfd
        return os.dup(file.fileno())
