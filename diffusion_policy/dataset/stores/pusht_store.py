"""PushT observations computed from recorded states, human or scripted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffusion_policy.dataset.array_cache import cached_array, content_hash
from diffusion_policy.dataset.stores.checks import check_finite
from diffusion_policy.dataset.stores.episode_store import (
    EpisodeInfo,
    EpisodeStore,
    read_rows,
    require_key,
)
from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.env.pusht.observations import OBSERVATIONS
from diffusion_policy.env.pusht.simulation import CONTROL_HZ
from diffusion_policy.spec.task_spec import Field
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.parallel_map import parallel_map

_RENDERER_VERSION = b"1"  # part of the cache key: raise it when images change
_STORED_IMAGE = "img"


class PushTStore(EpisodeStore):
    """A view of recorded PushT episodes in which every observation of the table can be read.

    Observations are computed from ``state``. Images are read from ``img`` where it was recorded,
    else they are drawn once and cached.

    Args:
        recorded: a store with ``state`` and ``action``, or its path.
        cache_dir: where images are kept.
    """

    def __init__(
        self, recorded: str | Path | EpisodeStore, cache_dir: str | Path = "data/cache"
    ) -> None:
        if not isinstance(recorded, EpisodeStore):
            recorded = open_store(recorded, cache_dir)
        self.recorded = recorded
        self.cache_dir = Path(cache_dir)
        self._computed: dict[str, np.ndarray] = {}

    @property
    def episode_ends(self) -> np.ndarray:
        """See :class:`EpisodeStore`."""
        return self.recorded.episode_ends

    @property
    def features(self) -> Mapping[str, Field]:
        """See :class:`EpisodeStore`; computed observations hide recorded ones of their name."""
        return {**self.recorded.features, **_FEATURES}

    @property
    def fps(self) -> float:
        """See :class:`EpisodeStore`."""
        return self.recorded.fps or CONTROL_HZ

    def prepare(self, fields: Mapping[str, Field]) -> None:
        """Compute these observations for every step; draw images that are not cached yet.

        Raises:
            UserError: PushT has no such observation or another shape of it, no state is recorded,
                or one is not finite.
        """
        for key, field in fields.items():
            if key not in _FEATURES and key not in self.recorded.features:
                raise UserError(
                    f"PushT has no observation {key!r}, only {', '.join(OBSERVATIONS)}; "
                    "correct shape_meta.obs"
                )
            if key not in _FEATURES:
                self.recorded.prepare({key: field})
            elif _FEATURES[key].shape != field.shape:
                raise UserError(
                    f"shape_meta.obs.{key} has shape {list(field.shape)} but PushT's is "
                    f"{list(_FEATURES[key].shape)}; correct shape_meta"
                )
            elif self._is_recorded(key):
                self.recorded.prepare({_STORED_IMAGE: field})
            else:
                self._computed[key] = self._compute(key)

    def fingerprint(self, fields: Mapping[str, Field]) -> str:
        """See :class:`EpisodeStore`; of what is recorded: computing it rounds on every machine."""
        found = self.recorded.features
        return self.recorded.fingerprint({k: found[k] for k in ("state", "action") if k in found})

    def read(self, key: str, steps: np.ndarray) -> np.ndarray | list[str]:
        """See :class:`EpisodeStore`; a key that was not prepared is prepared first."""
        if key in self._computed:
            return read_rows(self._computed[key], steps)
        if self._is_recorded(key):
            return self.recorded.read(_STORED_IMAGE if key == "image" else key, steps)
        require_key(self.features, key)
        self.prepare({key: self.features[key]})
        return self.read(key, steps)

    def episode(self, i: int) -> EpisodeInfo:
        """See :class:`EpisodeStore`; the initial state is the first one if none was recorded."""
        recorded = self.recorded.episode(i)
        if recorded.initial_state is not None:
            return recorded
        first = np.array([self.episode_ends[i - 1] if i else 0])
        (state,) = np.asarray(self.recorded.read("state", first))
        return EpisodeInfo(state, source=recorded.source)

    def _is_recorded(self, key: str) -> bool:
        if key == "image":
            return _STORED_IMAGE in self.recorded.features
        return key not in _FEATURES and key in self.recorded.features

    def _compute(self, key: str) -> np.ndarray:
        """(N, *shape) of an observation of the table."""
        states = np.asarray(self.recorded.read("state", np.arange(self.n_steps)))
        check_finite(states, "state", self.episode_ends)
        compute = OBSERVATIONS[key].compute
        if _FEATURES[key].type != "rgb":
            return compute(states)

        def draw(out: np.memmap) -> None:
            parallel_map(compute, states, out, "Drawing images")

        cache = self.cache_dir / f"{key}-{content_hash([states, _RENDERER_VERSION])}.npy"
        return cached_array(cache, (len(states), *_FEATURES[key].shape), np.uint8, draw)


_FEATURES = {
    key: Field(space.shape, "rgb", "VISUAL") if key == "image" else Field(space.shape)
    for key, (space, _) in OBSERVATIONS.items()
}
