"""PushT observations computed from recorded states, or recorded under published names."""

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
_PUBLISHED = {
    "agent_pos": "observation.state",
    "environment_state": "observation.environment_state",
    "image": "observation.image",
}
"""Names of observations in lerobot/pusht and lerobot/pusht_keypoints, which hold no whole state."""


class PushTStore(EpisodeStore):
    """A view of recorded PushT episodes in which every observation of the table can be read.

    Observations are computed from ``state``. Images are read from ``img`` where it was recorded,
    else they are drawn once and cached. Episodes without states, such as lerobot/pusht_keypoints,
    have those observations that were recorded as ``observation.state`` (the agent's position),
    ``observation.environment_state`` and ``observation.image``.

    Args:
        recorded: a store with ``action`` and either, or its path.
        cache_dir: where images are kept.
        cache: of recorded images that are videos, see :class:`LeRobotStore`.
    """

    def __init__(
        self,
        recorded: str | Path | EpisodeStore,
        cache_dir: str | Path = "data/cache",
        cache: str | None = None,
    ) -> None:
        if not isinstance(recorded, EpisodeStore):
            recorded = open_store(recorded, cache_dir, cache=cache)
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
            name = self._name_of(key)
            if name is None and key not in _FEATURES:
                raise UserError(
                    f"PushT has no observation {key!r}, only {', '.join(OBSERVATIONS)}; "
                    "correct shape_meta.obs"
                )
            if key in _FEATURES and _FEATURES[key].shape != field.shape:
                raise UserError(
                    f"shape_meta.obs.{key} has shape {list(field.shape)} but PushT's is "
                    f"{list(_FEATURES[key].shape)}; correct shape_meta"
                )
            if name is not None:
                self.recorded.prepare({name: field})
            else:
                self._computed[key] = self._compute(key)

    def fingerprint(self, fields: Mapping[str, Field]) -> str:
        """See :class:`EpisodeStore`; of what is recorded: computing it rounds on every machine."""
        found = self.recorded.features
        names = ("state",) if "state" in found else tuple(_PUBLISHED.values())
        return self.recorded.fingerprint({k: found[k] for k in (*names, "action") if k in found})

    def read(self, key: str, steps: np.ndarray) -> np.ndarray | list[str]:
        """See :class:`EpisodeStore`; a key that was not prepared is prepared first."""
        if key in self._computed:
            return read_rows(self._computed[key], steps)
        name = self._name_of(key)
        if name is not None:
            return self.recorded.read(name, steps)
        require_key(self.features, key)
        self.prepare({key: self.features[key]})
        return self.read(key, steps)

    def episode(self, i: int) -> EpisodeInfo:
        """See :class:`EpisodeStore`; the initial state is the first one if none was recorded."""
        recorded = self.recorded.episode(i)
        if recorded.initial_state is not None or "state" not in self.recorded.features:
            return recorded
        first = np.array([self.episode_ends[i - 1] if i else 0])
        (state,) = np.asarray(self.recorded.read("state", first))
        return EpisodeInfo(state, recorded.task, recorded.source)

    def _name_of(self, key: str) -> str | None:
        """Under which name an observation was recorded; None where it is computed."""
        found = self.recorded.features
        if key not in _FEATURES:
            return key if key in found else None
        if key == "image" and _STORED_IMAGE in found:
            return _STORED_IMAGE
        name = _PUBLISHED.get(key)
        is_recorded = "state" not in found and name in found
        return name if is_recorded else None

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
