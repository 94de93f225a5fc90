"""From a path to the store that reads what lies there."""

from __future__ import annotations

from pathlib import Path

from diffusion_policy.dataset.stores.episode_store import EpisodeStore
from diffusion_policy.dataset.stores.zarr_store import ZarrStore


def open_store(path: str | Path, cache_dir: str | Path = "data/cache") -> EpisodeStore:
    """The episodes at a path or URL; every format that is known is zarr.

    Args:
        path: of the data set.
        cache_dir: where what is decoded once is kept.

    Raises:
        UserError: the place cannot be opened, or holds no episodes in a known layout.
    """
    return ZarrStore(path, cache_dir)
