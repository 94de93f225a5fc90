"""Write episodes as a LeRobot data set, v2.1 or v3.0.

Columns and videos of an episode come first, then its rows in ``meta``, and at last
``meta/info.json``, whose counts decide which episodes there are. While episodes are added, that
file says ``unfinished``: rows and files beyond its counts belong to an episode that was never
completed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.dataset.stores.episode_store import TASK, EpisodeInfo
from diffusion_policy.dataset.stores.episode_writer import EpisodeWriter, Rows, Values
from diffusion_policy.dataset.stores.lerobot.columns import (
    arrow_table,
    automatic_columns,
    automatic_entries,
    feature_entry,
    png_bytes,
)
from diffusion_policy.dataset.stores.lerobot.features import AUTOMATIC
from diffusion_policy.dataset.stores.lerobot.info import (
    INFO,
    UNFINISHED,
    is_lerobot,
    read_info,
)
from diffusion_policy.dataset.stores.lerobot.layout import Layout, Layout2, NewEpisode
from diffusion_policy.dataset.stores.lerobot.layout_3 import DATA_MB, VIDEO_MB, Layout3
from diffusion_policy.dataset.stores.lerobot.metadata import read_metadata
from diffusion_policy.dataset.stores.lerobot.statistics import Statistics, vector_statistics
from diffusion_policy.dataset.stores.lerobot.video_files import (
    channels_first,
    statistics_of,
    write_video,
)
from diffusion_policy.dataset.video.encoder import VideoEncoding, video_info
from diffusion_policy.util.atomic_file import put_back
from diffusion_policy.util.errors import UserError, writing
from diffusion_policy.util.extras import import_extra
from diffusion_policy.util.json_text import json_text


class LeRobotWriter(EpisodeWriter):
    """Writes LeRobot v2.1 or v3.0; keys of the values become features of the same names.

    Args:
        root: folder of the data set; episodes that are there stay.
        fps: recorded steps per second.
        version: ``v2.1`` or ``v3.0``.
        robot_type: name of the robot.
        names: of the numbers of vectors, by key.
        encoding: of videos; None to store pictures as PNG in the columns, without loss.
        data_mb, video_mb: sizes of files of v3.0.
        durable: whether an episode survives a power cut, too, when it was added; without, it is
            left to the system when its files reach the disk.

    Raises:
        UserError: the folder holds something else, or episodes of another version or ``fps``.
    """

    def __init__(
        self,
        root: str | Path,
        fps: float,
        version: str = "v3.0",
        robot_type: str | None = None,
        names: Mapping[str, Any] | None = None,
        encoding: VideoEncoding | None = VideoEncoding(),  # noqa: B008 -- frozen
        data_mb: float = DATA_MB,
        video_mb: float = VIDEO_MB,
        durable: bool = True,
    ) -> None:
        self.root = Path(root)
        if not 0 < fps <= 1e6:
            raise UserError(f"fps is {fps}; give the recorded steps per second")
        self.fps = int(fps) if float(fps).is_integer() else fps
        self.names = names or {}
        self.encoding = encoding
        self.robot_type = robot_type
        if version not in ("v2.1", "v3.0"):
            raise UserError(f"the version to write is {version!r}; use v2.1 or v3.0")
        import_extra("pyarrow", "lerobot", "writing a LeRobot dataset")
        self._version, self._sizes, self._durable = version, (data_mb, video_mb), durable
        self._is_torn = False  # an episode failed midway: take up what was before it
        self._open()

    def _new_layout(self) -> Layout:
        if self._version == "v2.1":
            return Layout2(self.root)
        return Layout3(self.root, self.fps, *self._sizes)

    def _open(self) -> None:
        """Take up what is on the disk, without the episode that a dead writer was writing."""
        self._layout = self._new_layout()
        self._layout.durable = self._durable
        self._tasks: dict[str, int] = {}
        self._info: dict[str, Any] = self._new_info()
        put_back(self.root)
        if not is_lerobot(self.root):
            if self.root.exists() and (self.root.is_file() or any(self.root.iterdir())):
                raise UserError(f"{self.root} holds something else: choose another folder")
            return
        info = read_info(self.root)
        wanted = {"codebase_version": self._layout.version, "fps": self.fps}
        # New files would have other names than the known ones, and these be taken for leftovers.
        wanted |= {key: getattr(self._layout, key) for key in ("chunks_size", "data_path")}
        if info.get("video_path"):
            wanted["video_path"] = self._layout.video_path
        for key, value in wanted.items():
            if info.get(key) != value:
                raise UserError(
                    f"{self.root} has {key} {info.get(key)}, not {value}: write to another folder, "
                    "or convert the data set first"
                )
        self._info = info
        if self.n_episodes:
            self._tasks = {task: i for i, task in enumerate(read_metadata(self.root).tasks)}
        with writing(self.root):
            kept = self._layout.resume(self.n_episodes, list(self._tasks), self._cameras)
            if UNFINISHED in info:
                self._layout.remove_others(kept)

    def _new_info(self) -> dict[str, Any]:
        return {
            "codebase_version": self._layout.version,
            "robot_type": self.robot_type,
            "total_episodes": 0,
            "total_frames": 0,
            "total_tasks": 0,
            "chunks_size": self._layout.chunks_size,
            **self._layout.counts(0, 0),
            "fps": self.fps,
            "splits": {},
            "data_path": self._layout.data_path,
            "video_path": None,
            "features": {},
        }

    @property
    def n_episodes(self) -> int:
        """See :class:`EpisodeWriter`."""
        return self._info["total_episodes"]

    @property
    def _features(self) -> dict[str, dict[str, Any]]:
        return self._info["features"]

    @property
    def _cameras(self) -> list[str]:
        return [key for key, entry in self._features.items() if entry["dtype"] == "video"]

    def add_episode(self, values: Values, info: EpisodeInfo | None = None) -> None:
        """See :class:`EpisodeWriter`."""
        info = info or EpisodeInfo()
        length = _length(values)
        given: Any = values.get(TASK, [info.task or ""] * length)
        tasks = [str(task) for task in given]
        recorded = {key: value for key, value in values.items() if key != TASK}
        self._mend()
        self._check_features(recorded)
        self._is_torn = True
        with writing(self.root):
            self._begin()
            self._write(recorded, length, tasks, info.initial_state)
        self._is_torn = False

    def _mend(self) -> None:
        """Forget what is left of an episode that failed midway, as on a full disk."""
        if self._is_torn:
            self._open()
            self._is_torn = False

    def _check_features(self, recorded: Mapping[str, Rows | Sequence[str]]) -> None:
        """Let the first episode decide the features; refuse others later."""
        found = {
            key: feature_entry(key, value, self.names.get(key), as_video=self.encoding is not None)
            for key, value in recorded.items()
        }
        if not self.n_episodes:
            self._info = self._new_info() | {"features": found | automatic_entries()}
            self._info["video_path"] = self._layout.video_path if self._cameras else None
            return
        stored = {key: entry for key, entry in self._features.items() if key not in AUTOMATIC}
        if found.keys() != stored.keys():
            raise UserError(
                f"the episode has keys {sorted(found)} but the data set has {sorted(stored)}: "
                "give the same ones"
            )
        for key, entry in found.items():
            if not _fits(entry, stored[key]):
                raise UserError(
                    f"{key!r} is {entry['dtype']} {entry['shape']} in this episode, but "
                    f"{stored[key]['dtype']} {stored[key]['shape']} in the data set: give the same"
                )
            codec = stored[key].get("info", {}).get("video.codec")
            if self.encoding and codec and codec != self.encoding.codec:
                raise UserError(
                    f"{key!r} is encoded as {codec} in {self.root}, not {self.encoding.codec}: "
                    "choose that codec"
                )

    def _begin(self) -> None:
        """From here on, only the counts of info.json tell which episodes there are."""
        if UNFINISHED not in self._info or not self.n_episodes:
            self._write_info({**self._info, UNFINISHED: True})

    def _write(
        self,
        recorded: Mapping[str, Rows | Sequence[str]],
        length: int,
        tasks: Sequence[str],
        initial_state: np.ndarray | None,
    ) -> None:
        index, first_index = self.n_episodes, self._info["total_frames"]
        numbers, new_tasks = self._number_tasks(tasks)
        columns: dict[str, Any] = automatic_columns(length, self.fps, index, first_index, numbers)
        statistics: dict[str, Statistics] = {}
        features = {key: dict(entry) for key, entry in self._features.items()}
        for key, value in recorded.items():
            if features[key]["dtype"] == "video":
                path = self._layout.video_file(key, index)
                statistics[key] = self._write_video(path, value)
                features[key].setdefault("info", video_info(path, self.fps))
            elif features[key]["dtype"] == "image":
                columns[key], statistics[key] = _pictures(value)
            else:
                columns[key] = value[:]
        for key, entry in features.items():
            if key in columns and entry["dtype"] not in ("image", "string"):
                statistics[key] = vector_statistics(np.asarray(columns[key], entry["dtype"]))
        parquet = import_extra("pyarrow.parquet", "lerobot", "writing a LeRobot dataset")
        with self._layout.placing(self._layout.data_file(index)) as temporary:
            parquet.write_table(arrow_table(features, columns), temporary)
        names = list(dict.fromkeys(tasks))
        added = NewEpisode(
            *(index, first_index, length, names, self._cameras, statistics, initial_state)
        )
        self._layout.add(added, new_tasks)
        self._tasks |= new_tasks
        self._write_info(self._info | {"features": features} | self._counts(length))

    def _number_tasks(self, tasks: Sequence[str]) -> tuple[np.ndarray, dict[str, int]]:
        """The number of the task at each step (L,), and those of new tasks."""
        known = dict(self._tasks)
        for task in tasks:
            known.setdefault(task, len(known))
        new = {task: number for task, number in known.items() if task not in self._tasks}
        return np.array([known[task] for task in tasks]), new

    def _write_video(self, path: Path, pictures: Any) -> Statistics:
        assert self.encoding is not None
        with self._layout.placing(path) as temporary:
            return write_video(temporary, pictures, self.fps, self.encoding)

    def _counts(self, length: int) -> dict[str, Any]:
        """What info.json counts after one more episode of this length."""
        n_episodes = self.n_episodes + 1
        return {
            "total_episodes": n_episodes,
            "total_frames": self._info["total_frames"] + length,
            "total_tasks": len(self._tasks),
            **self._layout.counts(n_episodes, n_episodes * len(self._cameras)),
            "splits": {"train": f"0:{n_episodes}"},
            UNFINISHED: True,
        }

    def _write_info(self, info: dict[str, Any]) -> None:
        self._layout.write_text(self.root / INFO, json_text(info, indent=4))
        self._info = info

    def finish(self) -> None:
        """See :class:`EpisodeWriter`; v3.0: joins the files of single episodes to large ones."""
        self._mend()
        if UNFINISHED not in self._info or not self.n_episodes:
            return
        with writing(self.root):
            info = {key: value for key, value in self._info.items() if key != UNFINISHED}
            self._layout.tidy()
            if not self._layout.finish(info):
                self._write_info(info)
            self._layout.tidy()
        self._open()


def _length(values: Values) -> int:
    lengths = {
        key: (value.shape[0] if value.shape else 0) if hasattr(value, "shape") else len(value)
        for key, value in values.items()
    }
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise UserError(f"an episode needs arrays of one length, at least 1, but has {lengths}")
    return next(iter(lengths.values()))


def _fits(entry: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    """Whether values of one entry can be stored as the other."""
    if entry["shape"] != stored["shape"]:
        return False
    kinds = {entry["dtype"], stored["dtype"]}
    if len(kinds) == 1:
        return True
    return not kinds & {"video", "image", "string"} and np.can_cast(
        entry["dtype"], stored["dtype"], "same_kind"
    )


def _pictures(value: Any) -> tuple[list[bytes], Statistics]:
    """Pictures as PNG, and their statistics; those of depth are of its numbers, in millimetres."""
    pictures = channels_first(value[:])
    if pictures.dtype == np.uint8:
        return [png_bytes(picture) for picture in pictures], statistics_of(pictures)
    found = vector_statistics(pictures.reshape(-1, 1))
    shaped = {
        name: each if name == "count" else each[:, None, None] for name, each in found.items()
    }
    return [png_bytes(p) for p in pictures], {**shaped, "count": np.array([len(pictures)])}
