"""Pictures of episodes, encoded or decoded ahead by several processes.

A process prepares one episode at a time in a folder of its own, which appears when it is whole.
One other process adds the episodes to the data set, in order.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from diffusion_policy.dataset.edited_store import Edit, EditedStore
from diffusion_policy.dataset.store_origin import picture_statistics, video_parts
from diffusion_policy.dataset.stores.episode_store import EpisodeStore
from diffusion_policy.dataset.stores.lerobot.statistics import as_arrays, as_lists
from diffusion_policy.dataset.stores.lerobot.video_files import (
    Encoded,
    EncodedPictures,
    write_video,
)
from diffusion_policy.dataset.stores.open_store import open_undecoded
from diffusion_policy.dataset.stores.recorded_episode import StoredPictures, recorded_episode
from diffusion_policy.dataset.video.encoder import VideoEncoding
from diffusion_policy.dataset.video.packet_copy import Part
from diffusion_policy.dataset.video.segment import VideoSegment
from diffusion_policy.util.atomic_file import replacing
from diffusion_policy.util.errors import UserError, user_message
from diffusion_policy.util.extras import import_extra

_STATISTICS = "statistics.json"


@dataclass(frozen=True)
class PictureSettings:
    """How pictures are written.

    Attributes:
        fps: frames per second.
        encoding: of videos; None where pictures are not encoded as videos.
        reencode: whether videos are encoded anew even if their packets could be copied.
        recompute: whether statistics are made anew even where the source has some.
    """

    fps: float
    encoding: VideoEncoding | None = None
    reencode: bool = False
    recompute: bool = False


@dataclass(frozen=True)
class Source:
    """Where episodes are read; every process opens it for itself.

    Attributes:
        paths: of data sets; several are read one after another.
        edit: what is changed on the way; None changes nothing.
        cache_dir: where what is decoded once is kept.
    """

    paths: tuple[str, ...]
    edit: Edit | None = None
    cache_dir: str = "data/cache"

    def open(self) -> EpisodeStore:
        """The episodes.

        Raises:
            UserError: a path cannot be opened, or the edit does not fit it.
        """
        stores = [open_undecoded(path, self.cache_dir) for path in self.paths]
        if self.edit is None and len(stores) == 1:
            return stores[0]
        return EditedStore(stores, self.edit or Edit())


def values_of_episode(
    store: EpisodeStore, i: int, keys: Sequence[str], settings: PictureSettings
) -> dict[str, Any]:
    """The values of an episode; pictures that lie in a video come with their packets."""
    values: dict[str, Any] = dict(recorded_episode(store, i, keys))
    for key, value in values.items():
        if not isinstance(value, StoredPictures) or settings.reencode:
            continue
        parts = video_parts(store, key, i)
        if parts is not None:
            known = {} if settings.recompute else picture_statistics(store, key, i)
            values[key] = EncodedPictures(Encoded(parts, known), value)
    return values


def prepare_episodes(
    source: Source,
    folder: Path,
    episodes: Sequence[int],
    keys: Sequence[str],
    settings: PictureSettings,
    workers: int,
    backend: str,
) -> Iterator[Path]:
    """Yield the folder of each prepared episode, in order; a few are prepared ahead.

    Raises:
        UserError: what one of the processes says, or ray is not installed.
    """
    task = _Preparation(source, folder, tuple(episodes), tuple(keys), settings)
    results = _with_ray(task, workers) if backend == "ray" else _with_processes(task, workers)
    for i, message in zip(episodes, results, strict=True):
        if message:
            raise UserError(message)
        yield folder / str(i)


class _Preparation(Dataset):
    """Item k prepares the k-th of the episodes; it is the message of an error, or ``""``."""

    def __init__(
        self,
        source: Source,
        folder: Path,
        episodes: tuple[int, ...],
        keys: tuple[str, ...],
        settings: PictureSettings,
    ) -> None:
        self.source, self.folder, self.episodes = source, folder, episodes
        self.keys, self.settings = keys, settings

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, k: int) -> str:
        i = self.episodes[k]
        try:
            if not (self.folder / str(i)).is_dir():
                _prepare(_opened(self.source), self.folder / str(i), i, self.keys, self.settings)
        except Exception as error:
            message = user_message(error)
            if message is None:
                raise
            return message
        return ""


@lru_cache(maxsize=1)
def _opened(source: Source) -> EpisodeStore:
    return source.open()


def _prepare(
    store: EpisodeStore, folder: Path, i: int, keys: Sequence[str], settings: PictureSettings
) -> None:
    values = values_of_episode(store, i, keys, settings)
    found = {}
    with replacing(folder) as partial:
        partial.mkdir(parents=True)
        for n, (key, value) in enumerate(values.items()):
            if not isinstance(value, StoredPictures | EncodedPictures):
                continue
            if settings.encoding is None:
                np.save(partial / f"{n}.npy", value[:])
                continue
            path = partial / f"{n}.mp4"
            found[key] = as_lists(write_video(path, value, settings.fps, settings.encoding))
        (partial / _STATISTICS).write_text(json.dumps(found))


def load_prepared(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """The pictures of a prepared episode, by key, in the place of those in ``values``."""
    statistics = json.loads((folder / _STATISTICS).read_text())
    found: dict[str, Any] = {}
    for n, (key, value) in enumerate(values.items()):
        if (folder / f"{n}.npy").is_file():
            found[key] = np.load(folder / f"{n}.npy", mmap_mode="r")
        elif (folder / f"{n}.mp4").is_file():
            part = Part(VideoSegment(folder / f"{n}.mp4"), value.shape[0])
            known = as_arrays(statistics[key])
            found[key] = EncodedPictures(Encoded([part], known, is_own=True), value)
    return found


def _with_processes(task: _Preparation, workers: int) -> Iterator[str]:
    """Workers of a DataLoader: they exit with this process, even if it is killed."""
    return iter(
        DataLoader(
            task,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=2,
            worker_init_fn=partial(_exit_without_parent, os.getpid()),
            multiprocessing_context="spawn",  # a fork of open decoders and threads could hang
        )
    )


def _exit_without_parent(parent: int, worker: int) -> None:
    """End a worker whose parent was killed before the worker began to watch it."""
    if os.getppid() != parent:
        sys.exit(1)


def _with_ray(task: _Preparation, workers: int) -> Iterator[str]:
    ray = import_extra("ray", "ray", "--backend ray")
    starts_it = not ray.is_initialized()
    if starts_it:
        ray.init(log_to_driver=False, include_dashboard=False)
    try:
        prepare = ray.remote(num_cpus=1)(_Preparation.__getitem__)
        shared = ray.put(task)
        waiting: list[Any] = []
        for k in range(len(task)):
            waiting.append(prepare.remote(shared, k))
            if len(waiting) >= 2 * workers:
                yield ray.get(waiting.pop(0))
        for reference in waiting:
            yield ray.get(reference)
    finally:
        if starts_it:
            ray.shutdown()
