"""What differs between the versions of LeRobot when an episode is written: names and tables."""

from __future__ import annotations

import json
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.dataset.stores.lerobot.info import INITIAL_STATE
from diffusion_policy.dataset.stores.lerobot.statistics import (
    Statistics,
    as_lists,
    without_quantiles,
)
from diffusion_policy.util.atomic_file import remove, sync

_WRITING = ".writing"
_OURS = re.compile(r"(file-\d+|episode_\d+)\.(parquet|mp4)")


@dataclass(frozen=True)
class NewEpisode:
    """An episode whose columns and videos are on the disk.

    Attributes:
        index: number of the episode.
        first_index: number of its first step among all.
        length: in steps.
        tasks: texts of its tasks.
        cameras: keys that have a video.
        statistics: by feature.
        initial_state: of the simulator, if known.
    """

    index: int
    first_index: int
    length: int
    tasks: Sequence[str]
    cameras: Sequence[str]
    statistics: Mapping[str, Statistics]
    initial_state: np.ndarray | None

    @property
    def extra(self) -> dict[str, Any]:
        """What this package tells of an episode beyond the format."""
        return {} if self.initial_state is None else {INITIAL_STATE: self.initial_state.tolist()}


class Layout(ABC):
    """Names of files and tables of episodes, of one version of the format.

    Args:
        root: of the data set.
    """

    version: str
    data_path: str
    video_path: str
    chunks_size = 1000
    durable = True

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def data_file(self, episode: int) -> Path:
        """Where the columns of a new episode go."""

    @abstractmethod
    def video_file(self, key: str, episode: int) -> Path:
        """Where the video of a camera goes."""

    @abstractmethod
    def add(self, episode: NewEpisode, new_tasks: Mapping[str, int]) -> None:
        """Write down an episode, and the numbers of tasks that it is the first to have."""

    @abstractmethod
    def counts(self, n_episodes: int, n_videos: int) -> dict[str, Any]:
        """Entries of info.json that only this version has."""

    @abstractmethod
    def resume(self, n_episodes: int, tasks: Sequence[str], cameras: Sequence[str]) -> set[Path]:
        """Forget what lies beyond these episodes; returns the files that hold them."""

    def finish(self, info: Mapping[str, Any]) -> bool:
        """Put all episodes in their final form; whether ``info`` was written on the way."""
        return False

    @contextmanager
    def placing(self, path: Path) -> Iterator[Path]:
        """Yield a temporary path outside of where readers look; then give it its name."""
        temporary = self.root / _WRITING / path.name
        temporary.parent.mkdir(parents=True, exist_ok=True)
        remove(temporary)
        yield temporary
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.durable:
            sync(temporary)
        temporary.replace(path)
        if self.durable:
            sync(path.parent)

    def write_text(self, path: Path, text: str) -> None:
        """Replace a small file."""
        with self.placing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def remove_others(self, kept: set[Path]) -> None:
        """Remove files of episodes that were being written when their writer died."""
        shutil.rmtree(self.root / _WRITING, ignore_errors=True)
        for folder in ("data", "videos", "meta/episodes"):
            for path in sorted((self.root / folder).rglob("*")):
                if _OURS.fullmatch(path.name) and path.is_file() and path not in kept:
                    path.unlink()

    def tidy(self) -> None:
        """Remove what only writing needs."""
        shutil.rmtree(self.root / _WRITING, ignore_errors=True)


class Layout2(Layout):
    """v2.1: a parquet file, and a video for each camera, for each episode; tables in JSON lines."""

    version = "v2.1"
    data_path = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    video_path = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"

    def data_file(self, episode: int) -> Path:
        """See :class:`Layout`."""
        return self.root / self.data_path.format(**self._place(episode))

    def video_file(self, key: str, episode: int) -> Path:
        """See :class:`Layout`."""
        return self.root / self.video_path.format(video_key=key, **self._place(episode))

    def _place(self, episode: int) -> dict[str, int]:
        return {"episode_index": episode, "episode_chunk": episode // self.chunks_size}

    def add(self, episode: NewEpisode, new_tasks: Mapping[str, int]) -> None:
        """See :class:`Layout`."""
        statistics = {k: as_lists(without_quantiles(s)) for k, s in episode.statistics.items()}
        row = {"episode_index": episode.index, "tasks": list(episode.tasks)}
        row |= {"length": episode.length, **episode.extra}
        for task, index in new_tasks.items():
            self._append("tasks", {"task_index": index, "task": task})
        self._append("episodes_stats", {"episode_index": episode.index, "stats": statistics})
        self._append("episodes", row)

    def _append(self, table: str, row: Mapping[str, Any]) -> None:
        path = self._table(table)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            if self.durable:
                os.fsync(file.fileno())

    def _table(self, name: str) -> Path:
        return self.root / f"meta/{name}.jsonl"

    def counts(self, n_episodes: int, n_videos: int) -> dict[str, Any]:
        """See :class:`Layout`."""
        n_chunks = -(-n_episodes // self.chunks_size)
        return {"total_videos": n_videos, "total_chunks": n_chunks}

    def resume(self, n_episodes: int, tasks: Sequence[str], cameras: Sequence[str]) -> set[Path]:
        """See :class:`Layout`."""
        lengths = {"tasks": len(tasks), "episodes_stats": n_episodes, "episodes": n_episodes}
        for name, length in lengths.items():
            path = self._table(name)
            if path.is_file():
                lines = path.read_bytes().splitlines(keepends=True)
                if len(lines) > length:
                    with self.placing(path) as temporary:
                        temporary.write_bytes(b"".join(lines[:length]))
        episodes = range(n_episodes)
        videos = {self.video_file(key, i) for key in cameras for i in episodes}
        return videos | {self.data_file(i) for i in episodes}
