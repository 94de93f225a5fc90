"""What only stores of some formats know, and other formats can keep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from diffusion_policy.dataset.edited_store import EditedStore
from diffusion_policy.dataset.stores.episode_store import EpisodeStore
from diffusion_policy.dataset.stores.lerobot.metadata import LeRobotMetadata
from diffusion_policy.dataset.stores.lerobot.statistics import Statistics, as_arrays
from diffusion_policy.dataset.stores.lerobot.tables_3 import episode_rows, statistics_of_row
from diffusion_policy.dataset.video.packet_copy import Part

EpisodeStatistics = Mapping[str, Statistics]


def metadata_of(store: EpisodeStore) -> LeRobotMetadata | None:
    """What a store of the LeRobot format read; None for other stores."""
    metadata = getattr(store, "metadata", None)
    return metadata if isinstance(metadata, LeRobotMetadata) else None


def picture_statistics(store: EpisodeStore, key: str, episode: int) -> Statistics:
    """Statistics of pictures that were made before they were encoded; {} where there are none."""
    if isinstance(store, EditedStore):
        place, *others = store.places(episode)
        if others or not place.is_whole:
            return {}
        return picture_statistics(place.store, store.recorded_key(key), place.episode)
    metadata = metadata_of(store)
    if metadata is None:
        return {}
    known = _all_statistics(metadata.root, metadata.version, len(metadata.episodes))
    return dict(known.get(episode, {}).get(key, {}))


def video_parts(store: EpisodeStore, key: str, episode: int) -> list[Part] | None:
    """Where the pictures of an episode lie encoded; None where they are no video."""
    if isinstance(store, EditedStore):
        return store.video_parts(key, episode)
    segment = store.video(key, episode)
    ends = store.episode_ends
    length = int(ends[episode] - (ends[episode - 1] if episode else 0))
    return None if segment is None else [Part(segment, length)]


@lru_cache(maxsize=4)
def _all_statistics(root: Any, version: str, n_episodes: int) -> dict[int, EpisodeStatistics]:
    """By episode; {} where they cannot be read, because they can be made anew."""
    try:
        if version == "v3.0":
            rows = [row for _, each in episode_rows(root) for row in each]
            return {row["episode_index"]: _of_pictures(statistics_of_row(row)) for row in rows}
        lines = (root / "meta/episodes_stats.jsonl").read_bytes().splitlines()[:n_episodes]
        return {
            line["episode_index"]: _of_pictures(
                {key: as_arrays(lists) for key, lists in line["stats"].items()}
            )
            for line in map(json.loads, lines)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _of_pictures(statistics: EpisodeStatistics) -> EpisodeStatistics:
    return {k: s for k, s in statistics.items() if np.ndim(s.get("mean", 0)) == 3}
