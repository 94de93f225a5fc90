"""Pictures of an episode as a video file, copied as packets where they are encoded already."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from diffusion_policy.dataset.stores.episode_writer import Rows
from diffusion_policy.dataset.stores.lerobot.statistics import (
    PixelCounts,
    Statistics,
    is_sound,
    sampled_steps,
)
from diffusion_policy.dataset.video.encoder import VideoEncoding, codec_of, encode_frames
from diffusion_policy.dataset.video.packet_copy import NotCopyableError, Part, copy_parts

_BLOCK = 32  # frames: 30 MB at 640 x 480


@dataclass(frozen=True)
class Encoded:
    """What is known of pictures that were encoded before.

    Attributes:
        parts: where the frames lie, one part after another.
        statistics: of the frames before they were encoded; {} where they are not known.
        is_own: the file was made for this episode and may be moved.
    """

    parts: Sequence[Part]
    statistics: Mapping[str, np.ndarray]
    is_own: bool = False


class EncodedPictures:
    """Pictures of an episode (L, 3, H, W) that are encoded already, and decoded only if needed.

    Args:
        encoded: where they lie.
        pictures: the same, decoded when it is read.
    """

    def __init__(self, encoded: Encoded, pictures: Rows) -> None:
        self.encoded = encoded
        self._pictures = pictures

    @property
    def shape(self) -> tuple[int, ...]:
        """(L, 3, H, W)."""
        return self._pictures.shape

    @property
    def dtype(self) -> np.dtype:
        """uint8."""
        return self._pictures.dtype

    def __getitem__(self, steps: slice | np.ndarray) -> np.ndarray:
        return self._pictures[steps]


def write_video(path: Path, pictures: Rows, fps: float, encoding: VideoEncoding) -> Statistics:
    """Write an mp4 of an episode to ``path``; returns the statistics of its pictures.

    Packets are copied if the codec is the wanted one and the episode can be taken out of its file.

    Args:
        pictures: uint8 (L, 3, H, W) or (L, H, W, 3).

    Raises:
        UserError: the encoder refuses, or a file that the pictures come from is damaged.
        OSError: the disk is full.
    """
    encoded = pictures.encoded if isinstance(pictures, EncodedPictures) else None
    if encoded is None or not _reuse(path, encoded, fps, encoding):
        counts = PixelCounts()
        encode_frames(path, _counted(pictures, counts), fps, encoding)
        return _known(encoded) or counts.statistics()
    return _known(encoded) or statistics_of(pictures)


def statistics_of(pictures: Rows) -> Statistics:
    """Statistics of some of the pictures of an episode."""
    counts = PixelCounts()
    sampled = sampled_steps(pictures.shape[0])
    for start in range(0, len(sampled), _BLOCK):
        counts.add(channels_first(pictures[sampled[start : start + _BLOCK]]))
    return counts.statistics()


def channels_first(pictures: np.ndarray) -> np.ndarray:
    """(n, C, H, W) of pictures that may be (n, H, W, 3) or (n, H, W)."""
    if pictures.ndim == 3:
        return pictures[:, None]
    is_last = pictures.shape[-1] == 3 and pictures.shape[1] != 3
    return np.moveaxis(pictures, -1, 1) if is_last else pictures


def _known(encoded: Encoded | None) -> Statistics | None:
    if encoded is not None and is_sound(encoded.statistics, quantiles=True):
        return dict(encoded.statistics)
    return None


def _reuse(path: Path, encoded: Encoded, fps: float, encoding: VideoEncoding) -> bool:
    """Move the file or copy its packets to ``path``; False where that cannot be."""
    source = encoded.parts[0].segment.path
    if encoded.is_own:
        shutil.move(source, path)
        return True
    try:
        with av.open(str(source)) as container:
            if codec_of(container.streams.video[0]) != encoding.codec:
                return False
        copy_parts(path, encoded.parts, fps)
    except (NotCopyableError, av.FFmpegError, IndexError):  # whatever it is, decoding tells
        return False
    return True


def _counted(pictures: Rows, counts: PixelCounts) -> Iterator[np.ndarray]:
    """Blocks of all pictures; the sampled ones are counted on the way."""
    length = pictures.shape[0]
    sampled = sampled_steps(length)
    for start in range(0, length, _BLOCK):
        block = channels_first(pictures[start : min(start + _BLOCK, length)])
        inside = sampled[(sampled >= start) & (sampled < start + len(block))] - start
        if len(inside):
            counts.add(block[inside])
        yield block
