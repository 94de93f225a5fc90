"""PushT observations from recorded states, human or scripted."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffusion_policy.dataset.array_cache import cached_array
from diffusion_policy.dataset.readers import ArrayReader, require
from diffusion_policy.dataset.stores.checks import check_finite
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.env.pusht.observations import OBSERVATIONS
from diffusion_policy.spec.task_spec import Field
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.parallel_map import parallel_map

_RENDERER_VERSION = b"1"  # part of the cache key: raise it when pictures change


class PushTReader(ArrayReader):
    """Computes every observation of the PushT table from ``data/state``.

    Images come from ``data/img`` where the dataset has it, else they are drawn once and cached.
    """

    def __call__(
        self, buffer: ReplayBuffer, path: str | Path, key: str, field: Field
    ) -> np.ndarray:
        """(N, *field.shape): float32, or uint8 for the image; see :class:`ArrayReader`."""
        if key not in OBSERVATIONS:
            raise UserError(
                f"PushT has no observation {key!r}, only {', '.join(OBSERVATIONS)}; "
                "correct shape_meta.obs"
            )
        space, compute = OBSERVATIONS[key]
        if space.shape != field.shape:
            raise UserError(
                f"shape_meta.obs.{key} has shape {list(field.shape)} but PushT's is "
                f"{list(space.shape)}; correct shape_meta"
            )
        if field.type == "rgb" and "img" in buffer:
            return self.read_images(buffer, path, "img", key, field)
        states = np.asarray(require(buffer, "state")[: buffer.n_steps])
        check_finite(states, "state", buffer.episode_ends)
        if field.type != "rgb":
            return compute(states)

        def draw(out: np.memmap) -> None:
            parallel_map(compute, states, out, "Drawing images")

        cache = self.cache_path(key, [states, _RENDERER_VERSION])
        return cached_array(cache, (len(states), *field.shape), np.uint8, draw)
