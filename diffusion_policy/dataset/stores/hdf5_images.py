"""The images of one key of an HDF5 file, read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from diffusion_policy.dataset.file_digests import file_digests
from diffusion_policy.dataset.image_cache import ImageSource
from diffusion_policy.dataset.stores.hdf5_file import OpenFile, find_at, naming_file, read_rows
from diffusion_policy.spec.task_spec import Field
from diffusion_policy.util.errors import UserError

if TYPE_CHECKING:
    import h5py

_VERSION = "1"  # part of the cache key: raise it when pixels change
_BLOCK = 256  # images in memory at a time
_UNITS_PER_METRE = np.float32(1000)  # of depth in whole numbers

Change = Callable[[np.ndarray], np.ndarray]


def axes_of(shape: tuple[int, ...], field: Field) -> tuple[int, ...] | None:
    """Axes of recorded pictures (N, *shape) in the order of the field; () where they only need
    another shape, None where they do not fit."""
    if len(field.shape) != 3:
        return None
    channels, height, width = field.shape
    if shape == (height, width, channels):
        return (3, 1, 2)
    return () if shape == field.shape or (channels == 1 and shape == (height, width)) else None


class Hdf5Images(ImageSource):
    """Images of all steps: rgb as uint8, depth as float32 metres.

    Args:
        file: that holds them.
        places: paths of the arrays (L, ...) of all episodes, in their order.
        episode_ends: (E,) cumulative step counts.
        field: of an image, (C, H, W).
        cache_dir: where the digest of the file is remembered.
        change: of images (n, C, H, W), to ``changed_shape``.
    """

    def __init__(
        self,
        file: OpenFile,
        places: Sequence[str],
        episode_ends: np.ndarray,
        field: Field,
        cache_dir: Path,
        change: Change | None = None,
        changed_shape: tuple[int, ...] | None = None,
    ) -> None:
        self._file, self._places, self._ends = file, places, episode_ends
        self._field, self._cache_dir, self._change = field, cache_dir, change
        self.shape = changed_shape or field.shape
        self.dtype = np.dtype(np.uint8 if field.type == "rgb" else np.float32)
        self.n = int(episode_ends[-1])
        self._found_in: h5py.File | None = None
        self._found: dict[int, h5py.Dataset] = {}

    @property
    def is_plain(self) -> bool:
        """Whether single images can be read without unpacking or changing anything."""
        return self._change is None and all(
            self._array(i).chunks is None for i in range(len(self._places))
        )

    def fill(self, out: np.ndarray, desc: str) -> None:
        """See :class:`ImageSource`."""
        for first in tqdm(range(0, self.n, _BLOCK), desc=desc, disable=None):
            steps = np.arange(first, min(first + _BLOCK, self.n))
            out[steps[0] : steps[-1] + 1] = self.read(steps)

    def made_from(self) -> str:
        """See :class:`ImageSource`."""
        (digest,) = file_digests([self._file.path], self._cache_dir)
        return repr((_VERSION, digest, list(self._places)))

    def read(self, steps: np.ndarray) -> np.ndarray:
        """See :class:`ImageSource`."""
        unique, places = np.unique(steps, return_inverse=True)
        images = np.empty((len(unique), *self.shape), self.dtype)
        episodes = np.searchsorted(self._ends, unique, side="right")
        with naming_file(self._file.path):
            for i in np.unique(episodes).tolist():
                rows = np.flatnonzero(episodes == i)
                first = int(self._ends[i - 1]) if i else 0
                images[rows] = self._read(i, unique[rows] - first)
        return images[places.reshape(-1)]

    def _read(self, episode: int, rows: np.ndarray) -> np.ndarray:
        """(n, *shape) of increasing rows of an episode."""
        array = self._array(episode)
        images = read_rows(array, rows)
        if self._field.type == "depth" and array.dtype.kind == "u":
            images = images / _UNITS_PER_METRE
        axes = axes_of(array.shape[1:], self._field)
        images = images.transpose(0, *axes) if axes else images.reshape(-1, *self._field.shape)
        return images if self._change is None else self._change(np.ascontiguousarray(images))

    def _array(self, episode: int) -> h5py.Dataset:
        """The array of an episode; found and checked once in each process."""
        root = self._file.root
        if self._found_in is not root:
            self._found_in, self._found = root, {}
        if episode not in self._found:
            array = find_at(root, self._places[episode])
            if array is None:  # it was there when the data set was opened
                place = self._places[episode]
                raise UserError(f"{place} is gone; do not change the file meanwhile")
            self._found[episode] = array
        return self._found[episode]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_found_in": None, "_found": {}}
