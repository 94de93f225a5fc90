"""Episodes in a zarr group, as ReplayBuffer writes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from tqdm import tqdm

from diffusion_policy.dataset.array_cache import cached_array, content_hash
from diffusion_policy.dataset.stores.checks import is_text
from diffusion_policy.dataset.stores.episode_store import (
    EpisodeInfo,
    EpisodeStore,
    feature_of,
    mismatch,
    read_rows,
    require_feature,
    require_key,
)
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.stores.step_copy import read_steps
from diffusion_policy.dataset.stores.zarr_arrays import chunk_contents
from diffusion_policy.spec.task_spec import Field
from diffusion_policy.util.errors import UserError


class ZarrStore(EpisodeStore):
    """A zarr folder, zip file or URL in the layout of :class:`ReplayBuffer`.

    Vectors and texts are read into memory. Images are converted once into a file, which is mapped:
    they may be larger than the memory. The attribute ``fps`` of the group, if there is one, tells
    the recorded steps per second.

    Args:
        path: of the group.
        cache_dir: where converted images are kept, under a hash of what they were made from.

    Raises:
        UserError: the group cannot be opened, or breaks the layout.
    """

    def __init__(self, path: str | Path, cache_dir: str | Path = "data/cache") -> None:
        self.path = path
        self.cache_dir = Path(cache_dir)
        self.buffer = ReplayBuffer.create_from_path(path)
        self._features = {key: feature_of(array) for key, array in self.buffer.items()}
        self._prepared: dict[str, np.ndarray] = {}

    @property
    def episode_ends(self) -> np.ndarray:
        """See :class:`EpisodeStore`."""
        return self.buffer.episode_ends

    @property
    def features(self) -> Mapping[str, Field]:
        """See :class:`EpisodeStore`; images stored as floats look like vectors here."""
        return self._features

    @property
    def fps(self) -> float | None:
        """See :class:`EpisodeStore`."""
        root = self.buffer.root
        fps = root.attrs.get("fps") if isinstance(root, zarr.Group) else None
        return fps if isinstance(fps, int | float) else None

    def prepare(self, fields: Mapping[str, Field]) -> None:
        """Read these keys into memory, or convert them into a mapped file.

        Images may be stored as numbers of any type, (H, W, 3) or (3, H, W), in 0..255; depth as
        whole millimetres or float metres, (H, W) or (1, H, W).

        Raises:
            UserError: a key is missing, does not fit its field, holds other values than that, or
                is damaged.
        """
        for key, field in fields.items():
            self._require(key)
            if field.type == "rgb":
                self._prepared[key] = self._images(key, field)
            elif field.type == "depth":
                self._prepared[key] = self._depth_images(key, field)
            elif field.type == "low_dim":
                self._prepared[key] = self._vectors(key, field)
            else:
                require_feature(self.features, key, field)
                self._prepared[key] = self.buffer.read(key)

    def read(self, key: str, steps: np.ndarray) -> np.ndarray | list[str]:
        """See :class:`EpisodeStore`; a key that was not prepared is prepared first."""
        if key not in self._prepared:
            self._require(key)
            self.prepare({key: self.features[key]})
        return read_rows(self._prepared[key], steps)

    def read_recorded(self, key: str, steps: np.ndarray) -> np.ndarray | list[str]:
        """See :class:`EpisodeStore`; reads the chunks that hold these steps, and keeps nothing."""
        self._require(key)
        array: Any = self.buffer[key]
        first, stop = (int(steps.min()), int(steps.max()) + 1) if len(steps) else (0, 0)
        rows = read_steps(array, slice(first, stop), f"data/{key}")[steps - first]
        return [str(text) for text in rows] if is_text(array.dtype) else rows

    def episode(self, i: int) -> EpisodeInfo:
        """See :class:`EpisodeStore`; initial states are in ``meta/initial_state`` (E, S)."""
        states = self._initial_states
        state = None if states is None else states[i]
        return EpisodeInfo(state, source=f"{self.path}, episode {i}")

    @cached_property
    def _initial_states(self) -> np.ndarray | None:
        return self.buffer.read_meta("initial_state")

    def _require(self, key: str) -> None:
        if key not in self.features and key in self.buffer:
            _ = self.buffer[key]  # raises, and says why it cannot be opened
        require_key(self.features, key)

    def _vectors(self, key: str, field: Field) -> np.ndarray:
        array = self.buffer[key]
        if is_text(array.dtype) or math.prod(array.shape[1:]) != field.size:
            raise mismatch(key, field, f"{array.dtype} {list(array.shape[1:])}")
        return np.asarray(self.buffer.read(key), np.float32).reshape(-1, *field.shape)

    def _images(self, key: str, field: Field) -> np.ndarray:
        shape = self.buffer[key].shape[1:]
        channels_last = (*field.shape[1:], field.shape[0])
        if shape not in (field.shape, channels_last):
            raise mismatch(key, field, f"{self.buffer[key].dtype} {list(shape)}")

        def convert(values: np.ndarray, where: str) -> np.ndarray:
            pixels = values.astype(np.uint8)
            if not np.array_equal(pixels, values):
                raise UserError(
                    f"data/{key} holds values that are not whole numbers in 0..255 ({where}); "
                    "store images as uint8"
                )
            return pixels if shape == field.shape else np.moveaxis(pixels, -1, 1)

        return self._mapped(key, field, np.uint8, convert)

    def _depth_images(self, key: str, field: Field) -> np.ndarray:
        array = self.buffer[key]
        if array.shape[1:] not in (field.shape, field.shape[1:]) or array.dtype.kind not in "uf":
            raise mismatch(key, field, f"{array.dtype} {list(array.shape[1:])}")
        units_per_metre = np.float32(1 if array.dtype.kind == "f" else 1000)

        def convert(values: np.ndarray, where: str) -> np.ndarray:
            if not np.isfinite(values).all():
                raise UserError(f"data/{key} is not finite ({where}); store 0 where nothing is")
            return (values.astype(np.float32) / units_per_metre).reshape(-1, *field.shape)

        return self._mapped(key, field, np.float32, convert)

    def _mapped(
        self,
        key: str,
        field: Field,
        dtype: np.typing.DTypeLike,
        convert: Callable[[np.ndarray, str], np.ndarray],
    ) -> np.ndarray:
        """The converted array (N, *field.shape), mapped from a file that is written once.

        Its name holds a hash of what is stored. At a URL, that is read at every start.
        """
        array: Any = self.buffer[key]  # of zarr, since a path was opened
        n_steps = self.n_steps
        block = array.chunks[0]  # none is decoded twice

        def fill(out: np.ndarray) -> None:
            desc = f"Converting {key} to {out.dtype}"
            for start in tqdm(range(0, n_steps, block), desc=desc, disable=None):
                rows = slice(start, min(start + block, n_steps))
                values = read_steps(array, rows, f"data/{key}")
                out[rows] = convert(values, f"steps {rows.start} to {rows.stop}")

        what = repr((key, field.type, field.shape, n_steps)).encode()
        made_from = content_hash(chain([what], chunk_contents(array, n_steps)))
        cache = self.cache_dir / f"{key}-{made_from}.npy"
        return cached_array(cache, (n_steps, *field.shape), dtype, fill)
