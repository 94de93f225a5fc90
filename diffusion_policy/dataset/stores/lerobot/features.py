"""The features of a LeRobot dataset: what ``meta/info.json`` says of each column and camera."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffusion_policy.util.errors import UserError

AUTOMATIC = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""Columns that every dataset has and that say where a step belongs, not what was recorded."""
_NOT_NUMBERS = ("image", "video", "string", "language")
_MOST_AXES = 5  # HF datasets has no array type of more
_MOST_NUMBERS = 2**26  # of one step: a 4K RGB image has 2**24.6


@dataclass(frozen=True)
class Feature:
    """One entry of ``features``.

    Attributes:
        dtype: a type of numpy numbers, ``image``, ``video``, ``string`` or ``language``.
        shape: of one step.
        names: as stored: a list, a dict of lists, or None.
        info: of a video: codec, pixel format and the like.
    """

    dtype: str
    shape: tuple[int, ...]
    names: Any = None
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_image(self) -> bool:
        """Whether a step is a picture, wherever it is stored."""
        return self.dtype in ("image", "video")

    @property
    def is_number(self) -> bool:
        """Whether a step is an array of numbers."""
        return self.dtype not in _NOT_NUMBERS

    @property
    def is_depth(self) -> bool:
        """Whether pictures are depth maps."""
        return any(self.info.get(key) is True for key in ("is_depth_map", "video.is_depth_map"))

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the numbers of a vector, such as motors; () where they are not all named."""
        names = self.names
        if isinstance(names, Mapping):  # {"motors": [...]}
            lists = [value for value in names.values() if isinstance(value, list)]
            names = [name for value in lists for name in value]
        if not isinstance(names, list) or len(names) != math.prod(self.shape):
            return ()
        return tuple(str(name) for name in names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a picture.

        Pictures are channels last unless ``names`` or the shape say otherwise.
        """
        names = self.names if isinstance(self.names, list) else []
        first_named_channels = bool(names) and str(names[0]).startswith("channel")
        channels_first = first_named_channels or (
            not names and self.shape[0] in (1, 3) and self.shape[2] not in (1, 3)
        )
        a, b, c = self.shape
        return (a, b, c) if channels_first else (c, a, b)


def parse_feature(name: str, entry: Mapping[str, Any]) -> Feature:
    """One entry of ``features``, checked.

    Raises:
        UserError: without the file; the name, type or shape is none that a dataset can have.
    """
    where = f"features[{name!r}]"
    if not name or name in (".", "..") or "/" in name or "\\" in name or not name.isprintable():
        raise UserError(f"{where} has a name that would lead to other folders; rename it")
    dtype, shape = entry["dtype"], entry["shape"]
    if dtype not in _NOT_NUMBERS and not _is_number(dtype):
        raise UserError(
            f"{where} has dtype {dtype[:40]!r}; only numbers, image, video and string are read"
        )
    if len(shape) > _MOST_AXES or min(shape, default=1) < 1 or math.prod(shape) > _MOST_NUMBERS:
        raise UserError(f"{where} has shape {str(shape)[:80]}, which no step of a dataset has")
    info = entry.get("info") or entry.get("video_info") or {}
    feature = Feature(dtype, tuple(shape), entry.get("names"), info)
    if feature.is_image and (len(shape) != 3 or feature.image_shape[0] not in (1, 3, 4)):
        raise UserError(f"{where} has shape {shape}; a picture has height, width and channels")
    return feature


def _is_number(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "biuf"
    except TypeError:
        return False
