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
    """The arrays of ``fields``, zero at first, shared with whoever maps the same descriptor.

    The block has no name in the file system: it is gone when the last process that maps it ends,
    however that process ends, so nothing can be left behind.

    Args:
        fields: name -> (shape, dtype); must be the same in every process.
        fd: descriptor of an existing block, inherited from its creator; None creates one.

    Attributes:
        fd: descriptor to hand to a child (``pass_fds``); the creator closes it afterwards.
    """

    def __init__(self, fields: Fields, fd: int | None = None) -> None:
        starts, size = [], 0
        for shape, dtype in fields.values():
            starts.append(size)
            n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
            size += math.ceil(n_bytes / _CACHE_LINE) * _CACHE_LINE
        self.fd = _create_block(size) if fd is None else fd
        memory = mmap.mmap(self.fd, size)
        super().__init__(
            (name, np.ndarray(shape, dtype, buffer=memory, offset=start))
            for (name, (shape, dtype)), start in zip(fields.items(), starts, strict=True)
        )


def _create_block(size: int) -> int:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("shared_arrays")
    else:
        with tempfile.TemporaryFile() as file:  # unlinked from the start; macOS has no memfd
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
