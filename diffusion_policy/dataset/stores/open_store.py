"""From a path to the store that reads what lies there."""

from __future__ import annotations

from pathlib import Path

from diffusion_policy.dataset.stores.episode_store import EpisodeStore
from diffusion_policy.dataset.stores.hdf5_file import is_hdf5
from diffusion_policy.dataset.stores.hdf5_store import Hdf5Store
from diffusion_policy.dataset.stores.lerobot.info import READABLE_VERSIONS, is_lerobot
from diffusion_policy.dataset.stores.lerobot.lerobot_store import LeRobotStore
from diffusion_policy.dataset.stores.zarr_store import ZarrStore
from diffusion_policy.util.atomic_file import put_back
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.hub import is_hub_id, pull

TAGS = tuple(reversed(READABLE_VERSIONS))
"""Revisions of data sets on the hub: each is kept in the versions that it was converted from."""


def open_store(
    path: str | Path,
    cache_dir: str | Path = "data/cache",
    *,
    filter: str | None = None,
    cache: str | None = None,
) -> EpisodeStore:
    """The episodes at a path or URL, in the format that its content tells.

    Args:
        path: of a LeRobot data set, an HDF5 file or a zarr group; or the name of a LeRobot data
            set on the Hugging Face hub, such as ``lerobot/pusht_keypoints``.
        cache_dir: where what is decoded once is kept.
        filter: name of the list of episodes in an HDF5 file that are read; None reads all.
        cache: of decoded images, see :class:`LeRobotStore` and :class:`Hdf5Store`; zarr has no
            choice.

    Raises:
        UserError: the place cannot be opened, holds no episodes in a known layout, or has no such
            list or choice.
    """
    if "://" not in str(path):
        put_back(Path(path))  # where a process was killed while it replaced the folder
    if filter is not None and not is_hdf5(path):
        raise UserError(
            f"task.dataset.filter is {filter!r}, but only HDF5 files have lists of episodes; leave "
            "it null, or name the others in task.dataset.exclude_episodes"
        )
    if is_hub_id(path):
        return LeRobotStore(pull(str(path), "dataset", TAGS), cache_dir, cache)
    if is_lerobot(Path(path)):
        return LeRobotStore(path, cache_dir, cache)
    if is_hdf5(path):
        return Hdf5Store(path, cache_dir, filter=filter, cache=cache)
    if cache is not None:
        raise UserError(
            f"task.dataset.cache is {cache!r}, but images of a zarr group are converted once in "
            "any case; leave it null"
        )
    return ZarrStore(path, cache_dir)


def open_undecoded(path: str | Path, cache_dir: str | Path = "data/cache") -> EpisodeStore:
    """The episodes at a path, to be looked at once: images are decoded when they are read.

    Pictures in parquet files are not read singly, and those of zarr not without a cache.

    Raises:
        UserError: see :func:`open_store`.
    """
    store = open_store(path, cache_dir)
    in_columns = isinstance(store, LeRobotStore) and any(
        feature.dtype == "image" for feature in store.metadata.features.values()
    )
    if isinstance(store, LeRobotStore | Hdf5Store) and not in_columns:
        store.cache = "none"
    return store
