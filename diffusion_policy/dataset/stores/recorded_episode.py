"""An episode of a store as a writer takes it: pictures are read when they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from diffusion_policy.dataset.stores.episode_store import EpisodeStore, require_key
from diffusion_policy.dataset.stores.episode_writer import Rows
from diffusion_policy.spec.task_spec import Field
from diffusion_policy.util.errors import UserError

_LEAST_SIDE = 8
"""Pixels: an array (H, W, 3) of numbers that is smaller is no picture."""


class StoredPictures:
    """Pictures of an episode, uint8 (L, 3, H, W), which stay in their store until they are read.

    Args:
        key: of the store.
        first: step of the store.
        length: number of steps L.
    """

    def __init__(self, store: EpisodeStore, key: str, first: int, length: int) -> None:
        self._store, self._key, self._first = store, key, first
        shape = store.features[key].shape
        size = shape[1:] if shape[0] == 3 else shape[:2]
        self._shape = (length, 3, *size)

    @property
    def shape(self) -> tuple[int, ...]:
        """(L, 3, H, W)."""
        return self._shape

    @property
    def dtype(self) -> np.dtype:
        """uint8."""
        return np.dtype(np.uint8)

    def __getitem__(self, steps: slice | np.ndarray) -> np.ndarray:
        """Pictures (n, 3, H, W) of some steps of the episode."""
        wanted = self._first + np.arange(self._shape[0])[steps]
        values = np.asarray(self._store.read_recorded(self._key, wanted))
        pixels = values.astype(np.uint8, copy=False)
        if values.dtype != np.uint8 and not np.array_equal(pixels, values):
            raise UserError(
                f"{self._key!r} holds values that are not whole numbers in 0..255; store images as "
                "uint8, or leave the key out"
            )
        is_last = pixels.shape[-1] == 3 and pixels.shape[1] != 3
        return np.ascontiguousarray(np.moveaxis(pixels, -1, 1) if is_last else pixels)


def is_picture(field: Field) -> bool:
    """Whether values are colour pictures, be it as numbers of another type than uint8."""
    if field.type != "low_dim":
        return field.type == "rgb"
    shape = field.shape
    if len(shape) != 3 or 3 not in (shape[0], shape[-1]):
        return False
    return min(shape[1:] if shape[0] == 3 else shape[:2]) >= _LEAST_SIDE


def recorded_episode(
    store: EpisodeStore, i: int, keys: Iterable[str]
) -> dict[str, Rows | Sequence[str]]:
    """The values of episode ``i``, by key."""
    first = int(store.episode_ends[i - 1]) if i else 0
    length = int(store.episode_ends[i]) - first
    return {key: _values(store, key, first, length) for key in keys}


def _values(store: EpisodeStore, key: str, first: int, length: int) -> Rows | Sequence[str]:
    require_key(store.features, key)
    field = store.features[key]
    if is_picture(field):
        return StoredPictures(store, key, first, length)
    values = store.read_recorded(key, np.arange(first, first + length))
    if field.type == "depth":
        return _millimetres(np.asarray(values))
    return values


def _millimetres(depth: np.ndarray) -> np.ndarray:
    """uint16 (n, 1, H, W) of depth in metres or already in millimetres."""
    if depth.ndim == 3:
        depth = depth[:, None]
    if depth.dtype == np.uint16:
        return depth
    rounded = np.round(depth.astype(np.float64) * (1000 if depth.dtype.kind == "f" else 1))
    if not ((rounded >= 0) & (rounded < 2**16)).all():
        raise UserError(
            "depth is written as whole millimetres of 0 to 65535, but some is negative, farther or "
            "not finite; leave the key out, or clip it"
        )
    return rounded.astype(np.uint16)
