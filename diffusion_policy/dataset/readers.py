"""How the arrays of a store become the observations of a task's shape_meta.

A reader is called with the store, its path, the key and the field wanted, and returns all N steps.
A new task whose arrays already bear the names and shapes of its shape_meta needs none of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diffusion_policy.dataset.array_cache import cached_array, content_hash, stored_bytes
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.spec.task_spec import Field
from diffusion_policy.util.errors import UserError

_BLOCK = 256  # images converted at a time where the store has no chunks


class ArrayReader:
    """Reads the array named like the observation.

    Args:
        cache_dir: where converted images are kept.
    """

    def __init__(self, cache_dir: str | Path = "data/cache") -> None:
        self.cache_dir = Path(cache_dir)

    def __call__(
        self, buffer: ReplayBuffer, path: str | Path, key: str, field: Field
    ) -> np.ndarray:
        """(N, *field.shape): float32, or uint8 for rgb.

        Raises:
            UserError: the array is missing or does not hold that many numbers a step.
        """
        if field.type == "rgb":
            return self.read_images(buffer, path, key, key, field)
        return self.read_low_dim(buffer, key, f"obs.{key}", field)

    def read_low_dim(self, buffer: ReplayBuffer, name: str, entry: str, field: Field) -> np.ndarray:
        """Array ``name`` as shape_meta's ``entry``; trailing axes are flattened to fit."""
        array = require(buffer, name)
        n_steps = buffer.n_steps  # an interrupted append may have left more
        if math.prod(array.shape[1:]) != math.prod(field.shape):
            raise _mismatch(entry, field, name, array.shape[1:])
        return np.asarray(array[:n_steps], dtype=np.float32).reshape(-1, *field.shape)

    def read_images(
        self, buffer: ReplayBuffer, path: str | Path, name: str, key: str, field: Field
    ) -> np.ndarray:
        """Array ``name``, (N, H, W, 3) or (N, 3, H, W) in any dtype, as (N, 3, H, W) uint8 0..255.

        A file holds them, is written once for each content (at a URL, that is read and compared
        at every start) and is mapped: pictures may be larger than the memory.
        """
        array, n_steps = require(buffer, name), buffer.n_steps
        channels, height, width = field.shape
        channels_first = array.shape[1:] == field.shape
        if not channels_first and array.shape[1:] != (height, width, channels):
            raise _mismatch(f"obs.{key}", field, name, array.shape[1:])
        # Whole chunks of the store, so that none is decoded twice.
        block = getattr(array, "chunks", (_BLOCK,))[0]

        def convert(out: np.ndarray) -> None:
            for start in tqdm(range(0, n_steps, block), desc=f"Converting {name} to uint8"):
                stop = min(start + block, n_steps)
                values = np.asarray(array[start:stop])
                pixels = values.astype(np.uint8)
                if not np.array_equal(pixels, values):
                    raise UserError(
                        f"data/{name} holds values that are not whole numbers in 0..255 (steps "
                        f"{start} to {stop}); store pictures as uint8"
                    )
                out[start:stop] = pixels if channels_first else np.moveaxis(pixels, -1, 1)

        if "://" in str(path):  # an address says nothing of what lies there today
            content = (np.asarray(array[i : i + block]) for i in range(0, n_steps, block))
        else:
            content = [stored_bytes(path)]
        cache = self.cache_path(key, [repr((name, field)).encode(), *content])
        return cached_array(cache, (n_steps, *field.shape), np.uint8, convert)

    def cache_path(self, key: str, made_from: Iterable[bytes | np.ndarray]) -> Path:
        """The cache file for observation ``key`` made from these contents."""
        return self.cache_dir / f"{key}-{content_hash(made_from)}.npy"


def require(buffer: ReplayBuffer, name: str) -> np.ndarray:
    """The array ``data/<name>`` of the store, unread.

    Raises:
        UserError: there is none.
    """
    if name not in buffer:
        raise UserError(
            f"the dataset has no array data/{name}, only {', '.join(sorted(buffer.keys()))}; "
            "point task.dataset.path at data of this task or change shape_meta"
        )
    return buffer[name]


def _mismatch(entry: str, field: Field, name: str, found: tuple[int, ...]) -> UserError:
    return UserError(
        f"shape_meta.{entry} has shape {list(field.shape)} but data/{name} holds {list(found)} "
        "a step; correct shape_meta or the dataset"
    )
