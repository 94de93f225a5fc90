"""What ``meta/`` of a LeRobot dataset says, of all versions in one form, checked."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.dataset.stores.lerobot.checks import REMEDY, about
from diffusion_policy.dataset.stores.lerobot.episode_record import EpisodeRecord
from diffusion_policy.dataset.stores.lerobot.features import Feature, parse_feature
from diffusion_policy.dataset.stores.lerobot.info import INFO, read_info
from diffusion_policy.dataset.stores.lerobot.version_2 import episodes_from_lines, tasks_from_lines
from diffusion_policy.dataset.stores.lerobot.version_3 import (
    episodes_from_parquet,
    tasks_from_parquet,
)
from diffusion_policy.util.atomic_file import put_back
from diffusion_policy.util.errors import UserError


@dataclass(frozen=True)
class LeRobotMetadata:
    """A dataset as a whole.

    Attributes:
        root: folder of the dataset.
        version: ``v2.0``, ``v2.1`` or ``v3.0``.
        fps: steps per second.
        robot_type: name of the robot; None where nobody said.
        features: by name, the automatic ones included.
        tasks: by ``task_index``.
        episodes: in their order.
    """

    root: Path
    version: str
    fps: int | float
    robot_type: str | None
    features: Mapping[str, Feature]
    tasks: tuple[str, ...]
    episodes: tuple[EpisodeRecord, ...]

    @property
    def episode_ends(self) -> np.ndarray:
        """Cumulative step counts (E,) int64."""
        return np.cumsum([episode.length for episode in self.episodes], dtype=np.int64)


def read_metadata(root: str | Path) -> LeRobotMetadata:
    """Read and check ``meta/``; no data file or video is opened.

    Raises:
        UserError: a file is missing or damaged, the version is none that can be read, a file
            template leads elsewhere, or counts and indices contradict each other.
    """
    root = Path(root)
    put_back(root)  # where a process was killed that replaced it
    info = read_info(root)
    version = info["codebase_version"]
    with about(root / INFO):
        features = {name: parse_feature(name, entry) for name, entry in info["features"].items()}
    cameras = [name for name, feature in features.items() if feature.dtype == "video"]
    if version == "v3.0":
        tasks = tasks_from_parquet(root, info)
        episodes = episodes_from_parquet(root, info, cameras)
    else:
        tasks = tasks_from_lines(root, info)
        episodes = episodes_from_lines(root, info, cameras)
    _check_counts(root, info, tasks, episodes)
    return LeRobotMetadata(
        root, version, info["fps"], info.get("robot_type"), features, tasks, episodes
    )


def _check_counts(
    root: Path,
    info: Mapping[str, Any],
    tasks: Sequence[str],
    episodes: Sequence[EpisodeRecord],
) -> None:
    for i, episode in enumerate(episodes):
        if not 1 <= episode.length < 2**40:  # sums stay below 2**63
            raise UserError(f"{root / 'meta'}: episode {i} has {episode.length} steps; {REMEDY}")
    n_steps = sum(episode.length for episode in episodes)
    for key, found in (("total_episodes", len(episodes)), ("total_frames", n_steps)):
        if info[key] != found:
            raise UserError(
                f"{root / INFO} has {key} {info[key]}, but the episodes of {root / 'meta'} are "
                f"{found}; {REMEDY}"
            )
    if info.get("total_tasks") not in (None, len(tasks)):  # nothing depends on it
        warnings.warn(
            f"{root / INFO} has total_tasks {info['total_tasks']}, but {len(tasks)} are listed",
            stacklevel=3,
        )
