"""Check all that can be known of a data set on the disk, of zarr or LeRobot."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from diffusion_policy.dataset.store_origin import metadata_of
from diffusion_policy.dataset.stores.episode_store import EpisodeStore
from diffusion_policy.dataset.stores.lerobot.checks import REMEDY
from diffusion_policy.dataset.stores.lerobot.data_files import recorded_numbers
from diffusion_policy.dataset.stores.lerobot.features import Feature
from diffusion_policy.dataset.stores.lerobot.metadata import LeRobotMetadata
from diffusion_policy.dataset.stores.lerobot.parquet import read_columns
from diffusion_policy.dataset.stores.lerobot.statistics import (
    Statistics,
    aggregate,
    as_arrays,
    vector_statistics,
)
from diffusion_policy.dataset.stores.lerobot.tables_3 import episode_rows, statistics_of_row
from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.dataset.video.check import check_video
from diffusion_policy.dataset.video.packet_copy import Part
from diffusion_policy.util.errors import UserError

_COMPARED = ("min", "max", "mean", "std", "count")
_TOLERANCE = 1e-5
"""Of statistics, relative to the largest number: some programs sum in float32."""


def verify_dataset(path: str | Path) -> None:
    """Check lengths, indices and times of all steps, statistics, and ends of all episodes.

    Of zarr, the first and last step of each episode are read. Of LeRobot, statistics of numbers
    are computed anew and compared, the frames of videos are counted and looked up by their times,
    and the first and last picture of each episode are decoded.

    Raises:
        UserError: the first thing that is wrong.
    """
    store = open_store(path)
    metadata = metadata_of(store)  # opening it has checked the steps
    if metadata is None:
        _check_ends(store)
        return
    _check_statistics(metadata)
    for key, feature in metadata.features.items():
        if feature.dtype == "video":
            _check_videos(metadata, key, feature)
        elif feature.dtype == "image":
            _check_pictures(metadata, key, feature)


def _check_ends(store: EpisodeStore) -> None:
    ends = store.episode_ends
    edges = np.unique(np.concatenate([np.concatenate([[0], ends[:-1]]), ends - 1]))
    for key in store.features:
        for step in edges:
            store.read_recorded(key, np.array([step]))


def _check_statistics(metadata: LeRobotMetadata) -> None:
    stored, of_all = _stored_statistics(metadata)
    if not stored:
        return
    if len(stored) != len(metadata.episodes):
        raise UserError(
            f"{metadata.root / 'meta'} has statistics of {len(stored)} episodes, not of "
            f"{len(metadata.episodes)}; {REMEDY}"
        )
    for key, feature in metadata.features.items():
        if not feature.is_number:
            continue
        found = []
        for i, values in enumerate(_by_episode(metadata, key)):
            found.append(vector_statistics(values))
            _compare(metadata, f"episode {i}", key, found[-1], stored[i].get(key))
        _compare(metadata, "the data set", key, aggregate(found), of_all.get(key))


def _stored_statistics(
    metadata: LeRobotMetadata,
) -> tuple[list[dict[str, Statistics]], dict[str, Statistics]]:
    """Of each episode, and of all together, as far as they are on the disk."""
    root = metadata.root
    if metadata.version == "v3.0":
        rows = [row for _, each in episode_rows(root) for row in each]
        rows.sort(key=lambda row: row["episode_index"])
        episodes = [statistics_of_row(row) for row in rows]
    else:
        path = root / "meta/episodes_stats.jsonl"
        lines = path.read_bytes().splitlines() if path.is_file() else []
        found = sorted(map(json.loads, lines), key=lambda line: line["episode_index"])
        episodes = [{k: as_arrays(v) for k, v in line["stats"].items()} for line in found]
    if not any(episodes):
        return [], {}
    path = root / "meta/stats.json"
    if metadata.version != "v3.0" or not path.is_file():  # GR00T's counts differently
        return episodes, {}
    return episodes, {k: as_arrays(v) for k, v in json.loads(path.read_bytes()).items()}


def _by_episode(metadata: LeRobotMetadata, key: str) -> Iterator[np.ndarray]:
    """The values (L, ...) of a feature in each episode."""
    values = recorded_numbers(metadata, key)
    start = 0
    for stop in metadata.episode_ends.tolist():
        yield values[start:stop]
        start = stop


def _compare(
    metadata: LeRobotMetadata,
    what: str,
    key: str,
    found: Statistics,
    stored: Mapping[str, np.ndarray] | None,
) -> None:
    if stored is None:
        return
    scale = 1 + np.abs([found["min"], found["max"]]).max()
    for name in _COMPARED:
        if name in stored and stored[name].shape == found[name].shape:
            if (np.abs(stored[name] - found[name]) <= _TOLERANCE * scale).all():
                continue
            worst = int(np.abs(stored[name] - found[name]).argmax())
            raise UserError(
                f"{metadata.root}: {name} of {key!r} in {what} is {stored[name].flat[worst]:g} in "
                f"meta/, but {found[name].flat[worst]:g} in the data; {REMEDY}"
            )


def _check_videos(metadata: LeRobotMetadata, key: str, feature: Feature) -> None:
    parts: dict[Path, list[Part]] = {}
    for episode in metadata.episodes:
        segment = episode.videos[key]
        parts.setdefault(segment.path, []).append(Part(segment, episode.length))
    for path, of_file in parts.items():
        check_video(path, of_file, metadata.fps, feature.image_shape[1:])


def _check_pictures(metadata: LeRobotMetadata, key: str, feature: Feature) -> None:
    tables: dict[Path, Any] = {}
    for i, episode in enumerate(metadata.episodes):
        if episode.data_file not in tables:
            tables = {episode.data_file: read_columns(episode.data_file, [key])}
        column = tables[episode.data_file].column(key)
        for step in {0, episode.length - 1}:
            cell = column[episode.first_row + step].as_py()
            content = cell.get("bytes") if isinstance(cell, dict) else None
            picture = None
            if content:
                flat = np.frombuffer(content, np.uint8)
                picture = cv2.imdecode(flat, cv2.IMREAD_UNCHANGED)
            if picture is None or picture.shape[:2] != feature.image_shape[1:]:
                raise UserError(
                    f"{episode.data_file}: {key!r} in step {step} of episode {i} is no picture of "
                    f"{feature.image_shape[1]} x {feature.image_shape[2]} pixels; {REMEDY}"
                )
