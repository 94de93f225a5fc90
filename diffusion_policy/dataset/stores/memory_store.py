"""Episodes held as arrays in memory, for tests and small made-up data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from diffusion_policy.dataset.stores.checks import check_lengths
from diffusion_policy.dataset.stores.episode_store import (
    EpisodeInfo,
    EpisodeStore,
    feature_of,
    read_rows,
    require_key,
)
from diffusion_policy.spec.task_spec import Field


class MemoryStore(EpisodeStore):
    """A store of given arrays.

    Args:
        arrays: (N, ...) by key, or N strings; images are uint8 (3, H, W).
        episode_ends: (E,) cumulative step counts.
        features: by key, where the type and shape of an array do not tell, such as depth.
        fps: recorded steps per second.
        episodes: what is known of each episode.

    Raises:
        UserError: an array is shorter than the episodes.
    """

    def __init__(
        self,
        arrays: Mapping[str, npt.ArrayLike | Sequence[str]],
        episode_ends: npt.ArrayLike,
        features: Mapping[str, Field] | None = None,
        fps: float | None = None,
        episodes: Sequence[EpisodeInfo] = (),
    ) -> None:
        self._arrays = {key: _as_read(np.asarray(values)) for key, values in arrays.items()}
        self._episode_ends = np.asarray(episode_ends, np.int64)
        self._fps = fps
        self._episodes = episodes
        found = {key: feature_of(array) for key, array in self._arrays.items()}
        self._features = {**found, **(features or {})}
        check_lengths({key: len(array) for key, array in self._arrays.items()}, self.n_steps)

    @property
    def episode_ends(self) -> np.ndarray:
        """See :class:`EpisodeStore`."""
        return self._episode_ends

    @property
    def features(self) -> Mapping[str, Field]:
        """See :class:`EpisodeStore`."""
        return self._features

    @property
    def fps(self) -> float | None:
        """See :class:`EpisodeStore`."""
        return self._fps

    def read(self, key: str, steps: np.ndarray) -> np.ndarray | list[str]:
        """See :class:`EpisodeStore`."""
        require_key(self._features, key)
        return read_rows(self._arrays[key], steps)

    def episode(self, i: int) -> EpisodeInfo:
        """See :class:`EpisodeStore`."""
        return self._episodes[i] if self._episodes else super().episode(i)


def _as_read(array: np.ndarray) -> np.ndarray:
    if array.ndim == 1 and array.dtype.kind in "biuf":
        array = array[:, None]
    is_number = array.dtype.kind in "biuf" and feature_of(array).type == "low_dim"
    return array.astype(np.float32) if is_number else array
