"""Episodes of a LeRobot dataset, of version 2.0, 2.1 or 3.0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.dataset.image_cache import ImageSource, cached_images, check_cache
from diffusion_policy.dataset.stores.episode_store import (
    TASK,
    EpisodeInfo,
    EpisodeStore,
    mismatch,
    read_rows,
    require_feature,
    require_key,
)
from diffusion_policy.dataset.stores.lerobot.data_files import (
    as_numbers,
    as_texts,
    check_steps,
    read_steps,
    recorded_numbers,
)
from diffusion_policy.dataset.stores.lerobot.features import AUTOMATIC, Feature
from diffusion_policy.dataset.stores.lerobot.metadata import read_metadata
from diffusion_policy.dataset.stores.lerobot.picture_source import PictureSource
from diffusion_policy.dataset.video.segment import VideoSegment
from diffusion_policy.dataset.video.video_source import VideoSource
from diffusion_policy.spec.task_spec import Field
from diffusion_policy.transforms.images import resized
from diffusion_policy.util.errors import UserError


class LeRobotStore(EpisodeStore):
    """A folder in the layout of https://github.com/huggingface/lerobot.

    Features keep their names. Numbers and texts are read into memory; images are decoded once into
    a file that is mapped, or from their videos whenever they are read.

    Args:
        path: folder that holds meta, data and videos.
        cache_dir: where decoded images are kept.
        cache: of decoded images: none, disk or memory; None is disk as far as they are not large.

    Raises:
        UserError: the folder is no such data set, is damaged, or contradicts itself.
    """

    def __init__(
        self,
        path: str | Path,
        cache_dir: str | Path = "data/cache",
        cache: str | None = None,
    ) -> None:
        check_cache(cache)
        self.metadata = read_metadata(path)
        self.cache_dir = Path(cache_dir)
        self.cache = cache
        self._task_index = check_steps(self.metadata)
        self._ends = self.metadata.episode_ends
        self._features = {TASK: Field((), "text", "TEXT")}
        for key, feature in self.metadata.features.items():
            field = _field(key, feature)
            if field is not None:
                self._features[key] = field
        self._sizes: dict[str, tuple[int, int]] = {}
        self._numbers: dict[str, np.ndarray] = {}
        self._texts: dict[str, list[str]] = {}
        self._raw: dict[str, np.ndarray] = {}
        self._images: dict[str, np.ndarray | ImageSource] = {}

    @property
    def episode_ends(self) -> np.ndarray:
        """See :class:`EpisodeStore`."""
        return self._ends

    @property
    def features(self) -> Mapping[str, Field]:
        """See :class:`EpisodeStore`."""
        return self._features

    @property
    def fps(self) -> float:
        """See :class:`EpisodeStore`."""
        return self.metadata.fps

    @property
    def embodiment(self) -> str | None:
        """See :class:`EpisodeStore`."""
        return self.metadata.robot_type

    @property
    def names(self) -> Mapping[str, Any]:
        """See :class:`EpisodeStore`."""
        return {k: f.names for k, f in self.metadata.features.items() if f.is_number and f.names}

    @property
    def left_out(self) -> Mapping[str, str]:
        """See :class:`EpisodeStore`; depth videos, and columns of other types."""
        unread = self.metadata.features.keys() - self._features.keys() - set(AUTOMATIC)
        return {key: self._why_unread(key) for key in sorted(unread)}

    def scale(self, key: str, height: int, width: int) -> bool:
        """See :class:`EpisodeStore`; images that are decoded are scaled at once."""
        field = self._features.get(key)
        if field is None or field.type != "rgb" or key in self._images:
            return False
        self._sizes[key] = (height, width)
        return True

    def prepare(self, fields: Mapping[str, Field]) -> None:
        """Read numbers and texts into memory, and decode images that are to be cached.

        Raises:
            UserError: a key is missing, does not fit its field, or cannot be read.
        """
        for key, field in fields.items():
            self._require(key, field)
        numbers = [key for key, f in fields.items() if f.type == "low_dim"]
        texts = [key for key, f in fields.items() if f.type == "text" and key != TASK]
        self._read_columns(
            [key for key in numbers if key not in self._numbers],
            [key for key in texts if key not in self._texts],
        )
        for key, field in fields.items():
            if field.type in ("rgb", "depth") and key not in self._images:
                source = self._source(key)
                images = cached_images(source, key, self.cache, self.cache_dir)
                self._images[key] = source if images is None else images

    def read(self, key: str, steps: np.ndarray) -> np.ndarray | list[str]:
        """See :class:`EpisodeStore`; a key that was not prepared is prepared first."""
        require_key(self._features, key)
        if key == TASK:
            return [self.metadata.tasks[i] for i in self._task_index[steps]]
        if not any(key in held for held in (self._numbers, self._texts, self._images)):
            self.prepare({key: self._features[key]})
        if key in self._texts:
            return [self._texts[key][step] for step in steps]
        if key in self._numbers:
            return read_rows(self._numbers[key], steps)
        images = self._read_images(self._images[key], steps)
        if self._features[key].type == "depth":
            return images / np.float32(self._units_per_metre(key))
        return images

    def read_recorded(self, key: str, steps: np.ndarray) -> np.ndarray | list[str]:
        """See :class:`EpisodeStore`."""
        require_key(self._features, key)
        if self._features[key].type != "low_dim":
            return self.read(key, steps)
        if key not in self._raw:
            self._raw[key] = recorded_numbers(self.metadata, key)
        return self._raw[key][steps]

    def episode(self, i: int) -> EpisodeInfo:
        """See :class:`EpisodeStore`; the task is that of the first step."""
        first = self._ends[i - 1] if i else 0
        task = self.metadata.tasks[self._task_index[first]]
        state = self.metadata.episodes[i].initial_state
        initial_state = None if state is None else np.array(state)
        return EpisodeInfo(initial_state, task, f"{self.metadata.root}, episode {i}")

    def video(self, key: str, episode: int) -> VideoSegment | None:
        """See :class:`EpisodeStore`."""
        return self.metadata.episodes[episode].videos.get(key)

    def _require(self, key: str, field: Field) -> None:
        if key in self.left_out:
            raise UserError(f"{self._why_unread(key)}; remove it from shape_meta")
        if field.type == "low_dim":  # before it is read: axes may be flattened
            require_feature(self._features, key, field)
            return
        require_key(self._features, key)
        found = self._features[key]
        if (found.type, found.shape) != (field.type, field.shape):
            raise mismatch(key, field, f"{found.type} {list(found.shape)}")

    def _why_unread(self, key: str) -> str:
        feature = self.metadata.features[key]
        kind = f"{'depth ' if feature.is_depth else ''}{feature.dtype}"
        return f"{self.metadata.root}: {key!r} is {kind}, which is not read"

    def _read_columns(self, numbers: Sequence[str], texts: Sequence[str]) -> None:
        if not numbers and not texts:
            return
        parts: dict[str, list] = {key: [] for key in (*numbers, *texts)}
        for path, table in read_steps(self.metadata, [*numbers, *texts]):
            for key in numbers:
                feature = self.metadata.features[key]
                parts[key].append(as_numbers(path, table.column(key), key, feature))
            for key in texts:
                parts[key].append(as_texts(path, table.column(key), key))
        for key in numbers:
            shape = self._features[key].shape
            self._numbers[key] = np.concatenate(parts[key]).reshape(-1, *shape)
        for key in texts:
            self._texts[key] = [text for part in parts[key] for text in part]

    def _source(self, key: str) -> ImageSource:
        """What decodes these images."""
        feature = self.metadata.features[key]
        shape = self._features[key].shape
        change = changed = None
        if key in self._sizes:
            height, width = self._sizes[key]
            change, changed = partial(resized, height=height, width=width), (3, height, width)
        if feature.dtype == "image":
            return PictureSource(self.metadata, key, self.cache_dir, change, changed)
        segments = [episode.videos[key] for episode in self.metadata.episodes]
        source = VideoSource(segments, self._ends, self.fps, shape, self.cache_dir, change, changed)
        source.check()
        return source

    def _read_images(self, images: np.ndarray | ImageSource, steps: np.ndarray) -> np.ndarray:
        if isinstance(images, np.ndarray):
            return np.asarray(read_rows(images, steps))
        return images.read(steps.ravel()).reshape(*steps.shape, *images.shape)

    def _units_per_metre(self, key: str) -> float:
        unit = self.metadata.features[key].info.get("depth_unit", "mm")
        return 1.0 if unit == "m" else 1000.0


def _field(key: str, feature: Feature) -> Field | None:
    """What a feature is to the window dataset; None if it cannot be read or says nothing."""
    if key in (*AUTOMATIC, TASK):
        return None
    if feature.is_image:
        _, height, width = feature.image_shape
        if feature.is_depth:
            return Field((1, height, width), "depth", "DEPTH") if feature.dtype == "image" else None
        return Field((3, height, width), "rgb", "VISUAL")
    if feature.dtype == "string":
        return Field((), "text", "TEXT")
    return Field(feature.shape or (1,)) if feature.is_number else None
