"""Decoded images of a data set, kept on the disk or in memory."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from diffusion_policy.dataset.array_cache import cached_array, content_hash
from diffusion_policy.util.errors import UserError

CACHES = ("none", "disk", "memory")
_MOST_BYTES = 10e9
"""Larger caches are made only where they are asked for."""


class ImageSource(ABC):
    """N images that are decoded when they are read.

    Attributes:
        shape: of each, (C, H, W).
        dtype: of their pixels.
        n: how many.
        is_random: whether any of them can be read without reading many others.
    """

    shape: tuple[int, ...]
    dtype: np.dtype = np.dtype(np.uint8)
    n: int
    is_random: bool = True

    @abstractmethod
    def fill(self, out: np.ndarray, desc: str) -> None:
        """Decode all of them into ``out`` (N, C, H, W), with a progress bar of this label."""

    @abstractmethod
    def made_from(self) -> str:
        """A digest of the content of all files and of whatever else decides the pixels."""

    def read(self, steps: np.ndarray) -> np.ndarray:
        """Images (n, C, H, W) of these steps (n,)."""
        raise NotImplementedError


def check_cache(cache: str | None) -> None:
    """Check a choice of ``task.dataset.cache``.

    Raises:
        UserError: it is none.
    """
    if cache is not None and cache not in CACHES:
        raise UserError(
            f"task.dataset.cache is {cache!r}; use {', '.join(CACHES)}, or null for disk where "
            f"decoded images take less than {_MOST_BYTES / 1e9:.0f} GB"
        )


def cached_images(
    source: ImageSource, key: str, cache: str | None, cache_dir: Path
) -> np.ndarray | None:
    """All images of a source (N, C, H, W), or None where they are to be decoded when read.

    Args:
        key: name of the images.
        cache: one of :data:`CACHES`; None chooses.
        cache_dir: folder of the files. Their names hold a hash of what they were made from.

    Raises:
        UserError: the images cannot be decoded, or there is no room for them.
    """
    size = source.n * int(np.prod(source.shape)) * source.dtype.itemsize
    if cache == "memory":
        return _in_memory(source, key, size)
    if cache == "none":
        if source.is_random:
            return None
        raise UserError(
            f"task.dataset.cache is none, but {key!r} is stored as pictures in parquet files, "
            "which are not read singly; use disk or memory, or convert the data set to videos"
        )
    made_from = content_hash([repr((key, source.shape)).encode(), source.made_from().encode()])
    path = cache_dir / f"{_file_name(key)}-{made_from}.npy"
    if not path.exists():
        if cache is None and source.is_random and not _is_small(size, cache_dir):
            print(
                f"{key}: decoded while training, since all images take {size / 1e9:.1f} GB; "
                "task.dataset.cache=disk decodes them once"
            )
            return None
        print(f"{key}: decoding {source.n} images into {path}, {size / 1e9:.2f} GB", flush=True)
    return cached_array(
        path, (source.n, *source.shape), source.dtype, lambda out: source.fill(out, key)
    )


def _in_memory(source: ImageSource, key: str, size: int) -> np.ndarray:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > total:
        raise UserError(
            f"task.dataset.cache is memory, but the images of {key!r} take {size / 1e9:.1f} GB of "
            f"{total / 1e9:.1f} GB; use disk, or resize them in task.transforms"
        )
    print(f"{key}: decoding {source.n} images into memory, {size / 1e9:.2f} GB", flush=True)
    images = np.empty((source.n, *source.shape), source.dtype)
    source.fill(images, key)
    return images


def _is_small(size: int, cache_dir: Path) -> bool:
    existing = next(p for p in (cache_dir, *cache_dir.absolute().parents) if p.exists())
    return size <= min(_MOST_BYTES, shutil.disk_usage(existing).free / 2)


def _file_name(key: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in key)
