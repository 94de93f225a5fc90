"""Write LeRobot v3.0: a file for each episode while episodes are added, then large files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion_policy.dataset.stores.lerobot.info import UNFINISHED
from diffusion_policy.dataset.stores.lerobot.layout import Layout, NewEpisode
from diffusion_policy.dataset.stores.lerobot.merge import merge_files
from diffusion_policy.dataset.stores.lerobot.statistics import Statistics, aggregate, as_lists
from diffusion_policy.dataset.stores.lerobot.tables_3 import (
    META_PATH,
    episode_rows,
    prefixed,
    rows_table,
    statistics_of_rows,
    tasks_table,
)
from diffusion_policy.util.extras import import_extra
from diffusion_policy.util.json_text import json_text

DATA_MB, VIDEO_MB = 100, 200
"""A file is followed by another one when it is this large."""


class Layout3(Layout):
    """v3.0. Episodes are counted by the rows of ``meta/episodes``; each camera has its own files.

    Args:
        root: of the data set.
        fps: steps per second.
        data_mb: most megabytes of a file of columns.
        video_mb: most megabytes of a video.
    """

    version = "v3.0"
    data_path = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    video_path = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

    def __init__(
        self, root: Path, fps: float, data_mb: float = DATA_MB, video_mb: float = VIDEO_MB
    ) -> None:
        super().__init__(root)
        self.fps, self.data_mb, self.video_mb = fps, data_mb, video_mb
        self._numbers: dict[str, int] = {}  # of the next file: of data, of episodes, of each camera
        self._tasks: list[str] = []
        self._statistics: dict[str, Statistics] = {}

    def data_file(self, episode: int) -> Path:
        """See :class:`Layout`."""
        return self.root / self.data_path.format(**self._place("data"))

    def video_file(self, key: str, episode: int) -> Path:
        """See :class:`Layout`."""
        return self.root / self.video_path.format(video_key=key, **self._place(f"videos/{key}"))

    def _place(self, kind: str) -> dict[str, int]:
        chunk, file = divmod(self._numbers.get(kind, 0), self.chunks_size)
        return {"chunk_index": chunk, "file_index": file}

    def add(self, episode: NewEpisode, new_tasks: Mapping[str, int]) -> None:
        """See :class:`Layout`."""
        if new_tasks:
            self._tasks += new_tasks
            self._write_table(self.root / "meta/tasks.parquet", tasks_table(self._tasks))
        cameras = [f"videos/{key}" for key in episode.cameras]
        row = self._row(episode, cameras)
        path = self.root / META_PATH.format(**self._place("meta/episodes"))
        self._write_table(path, rows_table([row]))
        before = self._statistics
        self._statistics = {
            key: aggregate([before[key], new]) if key in before else new
            for key, new in episode.statistics.items()
        }
        self._write_statistics()
        for kind in ("data", "meta/episodes", *cameras):
            self._numbers[kind] = self._numbers.get(kind, 0) + 1

    def _row(self, episode: NewEpisode, cameras: Sequence[str]) -> dict[str, Any]:
        row: dict[str, Any] = {
            "episode_index": episode.index,
            "tasks": list(episode.tasks),
            "length": episode.length,
            **prefixed("data", self._place("data")),
            "dataset_from_index": episode.first_index,
            "dataset_to_index": episode.first_index + episode.length,
        }
        for kind in cameras:
            times = {"from_timestamp": 0.0, "to_timestamp": episode.length / self.fps}
            row |= prefixed(kind, {**self._place(kind), **times})
        for key, statistics in episode.statistics.items():
            row |= prefixed(f"stats/{key}", as_lists(statistics))
        return row | prefixed("meta/episodes", self._place("meta/episodes")) | episode.extra

    def _write_table(self, path: Path, table: Any) -> None:
        parquet = import_extra("pyarrow.parquet", "lerobot", "writing a LeRobot dataset")
        with self.placing(path) as temporary:
            parquet.write_table(table, temporary)

    def _write_statistics(self) -> None:
        lists = {key: as_lists(each) for key, each in self._statistics.items()}
        self.write_text(self.root / "meta/stats.json", json_text(lists, indent=4))

    def counts(self, n_episodes: int, n_videos: int) -> dict[str, Any]:
        """See :class:`Layout`."""
        return {
            "data_files_size_in_mb": self.data_mb,
            "video_files_size_in_mb": self.video_mb,
        }

    def resume(self, n_episodes: int, tasks: Sequence[str], cameras: Sequence[str]) -> set[Path]:
        """See :class:`Layout`."""
        kept = set()
        rows = []
        for path, of_file in episode_rows(self.root):
            ours = [row for row in of_file if row["episode_index"] < n_episodes]
            if ours:
                kept.add(path)
                self._use("meta/episodes", path)
            rows += ours
        for row in rows:
            for kind in ("data", *(f"videos/{key}" for key in cameras)):
                place = {part: row[f"{kind}/{part}"] for part in ("chunk_index", "file_index")}
                template = self.data_path if kind == "data" else self.video_path
                path = self.root / template.format(video_key=kind.removeprefix("videos/"), **place)
                kept.add(path)
                self._use(kind, path)
        self._statistics = statistics_of_rows(rows)
        self._tasks = list(tasks)
        return kept

    def _use(self, kind: str, path: Path) -> None:
        """The next file of a kind comes after this one."""
        found = re.search(r"chunk-(\d+)/file-(\d+)\.\w+$", path.as_posix())
        assert found is not None
        number = int(found[1]) * self.chunks_size + int(found[2])
        self._numbers[kind] = max(self._numbers.get(kind, 0), number + 1)

    def finish(self, info: Mapping[str, Any]) -> bool:
        """Join the files of single episodes up to the sizes; see :class:`Layout`."""
        final = {key: value for key, value in info.items() if key != UNFINISHED}
        rows = [row for _, of_file in episode_rows(self.root) for row in of_file]
        self._statistics = statistics_of_rows(rows)
        self._write_statistics()
        return merge_files(self, rows, final)
