"""Encode recorded pictures as mp4: every frame at its exact time, quick to reach at random."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from diffusion_policy.dataset.video.priority import keeper
from diffusion_policy.util.errors import UserError, one_line

ENCODERS = {"av1": "libsvtav1", "h264": "libx264", "hevc": "libx265"}
"""Encoder by the name of its codec."""

_LEAST_SIDE = {"hevc": 64}
"""Pixels. x265 4.1 writes beyond its memory at smaller sides, which kills the process."""
_PRESETS = {"av1": "12", "h264": "medium", "hevc": "medium"}
# SVT-AV1 prints its settings at every start otherwise; it reads this once, when it is first used.
os.environ.setdefault("SVT_LOG", "1")


@dataclass(frozen=True)
class VideoEncoding:
    """How pictures are encoded. The defaults are those of LeRobot.

    Attributes:
        codec: ``av1``, ``h264`` or ``hevc``.
        g: a key frame every so many frames. To reach a frame, a reader decodes up to so many.
        crf: constant rate factor, 0 to 63 (av1) or 51; less is better and larger.
        preset: of the encoder; None for the one that suits recording.
        threads: of the encoder; 0 for as many as it likes.

    Raises:
        UserError: an unknown codec, or a number out of range.
    """

    codec: str = "av1"
    g: int = 2
    crf: int = 30
    preset: str | None = None
    threads: int = 0

    def __post_init__(self) -> None:
        if self.codec not in ENCODERS:
            raise UserError(f"video codec is {self.codec!r}; use {', '.join(ENCODERS)}")
        most = 63 if self.codec == "av1" else 51
        if not 0 <= self.crf <= most:
            raise UserError(f"crf of {self.codec} is {self.crf}; use 0 to {most}")
        if self.g < 1:
            raise UserError(f"g is {self.g}; use a key frame every 1 or more frames")

    def options(self) -> dict[str, str]:
        """What the encoder is told."""
        options = {"g": str(self.g), "crf": str(self.crf)}
        options["preset"] = self.preset or _PRESETS[self.codec]
        # Frames are stored in the order in which they are shown, so that times begin at 0.
        if self.codec == "av1":
            return options | ({"svtav1-params": f"lp={self.threads}"} if self.threads else {})
        if self.codec == "hevc":
            pools = f":pools={self.threads}" if self.threads else ""
            return options | {"x265-params": f"bframes=0:log-level=error{pools}"}
        return options | {"bf": "0"}

    def pixel_format(self, height: int, width: int) -> str:
        """Colour is halved in both directions, where the codec can do that at this size."""
        odd = height % 2 or width % 2
        return "yuv444p" if odd and self.codec != "av1" else "yuv420p"


def frame_rate(fps: float) -> Fraction:
    """Frames per second as the ratio that was meant: 29.97 is 2997/100, 30000/1001 itself."""
    return Fraction(fps).limit_denominator(1001)


def encode_frames(
    path: Path, blocks: Iterable[np.ndarray], fps: float, encoding: VideoEncoding
) -> int:
    """Write frames to ``path``, frame k at k / fps seconds, and return their number.

    Args:
        path: of the mp4, written in place.
        blocks: uint8 (n, 3, H, W) or (n, 1, H, W), one after another.
        fps: frames per second.
        encoding: codec and quality.

    Raises:
        UserError: the encoder refuses the size of the pictures, or cannot be started.
        OSError: the disk is full, or ``path`` cannot be written.
    """
    rate = frame_rate(fps)
    n_frames = 0
    stream: Any = None
    keep_priority = keeper()
    # faststart puts the index first: the file can be read while it is fetched.
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        for block in blocks:
            if stream is None:
                stream = _add_stream(container, rate, block.shape[2:], encoding)
            for pixels in _channels_last(block):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = n_frames, 1 / rate
                container.mux(_encode(stream, frame, encoding))
                if n_frames == 0:  # it has started its threads
                    keep_priority()
                n_frames += 1
        if stream is not None:
            container.mux(_encode(stream, None, encoding))
    return n_frames


def _channels_last(block: np.ndarray) -> np.ndarray:
    """(n, H, W, 3), in one piece."""
    if block.shape[1] == 1:
        block = np.repeat(block, 3, axis=1)
    return np.ascontiguousarray(np.moveaxis(block, 1, -1))


def _add_stream(
    container: Any, rate: Fraction, size: tuple[int, ...], encoding: VideoEncoding
) -> Any:
    least = _LEAST_SIDE.get(encoding.codec, 1)
    if min(size) < least:
        raise UserError(
            f"pictures of {size[1]} x {size[0]} cannot be encoded as {encoding.codec}, which needs "
            f"{least} pixels a side; choose another codec"
        )
    stream = container.add_stream(ENCODERS[encoding.codec], rate=rate, options=encoding.options())
    stream.height, stream.width = size
    stream.pix_fmt = encoding.pixel_format(*size)
    stream.time_base = stream.codec_context.time_base = 1 / rate
    if encoding.threads:
        stream.codec_context.thread_count = encoding.threads
    return stream


def _encode(stream: Any, frame: av.VideoFrame | None, encoding: VideoEncoding) -> Any:
    try:
        return stream.encode(frame)
    except av.FFmpegError as error:
        raise UserError(
            f"pictures of {stream.width} x {stream.height} cannot be encoded as {encoding.codec} "
            f"with crf {encoding.crf} and preset {encoding.options()['preset']} "
            f"({one_line(error)}); choose another codec or size"
        ) from error


def video_info(path: Path, fps: float) -> dict[str, Any]:
    """What LeRobot's ``info`` of a video feature tells of an mp4.

    Raises:
        UserError: the file holds no video.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            return {
                "video.height": context.height,
                "video.width": context.width,
                "video.codec": codec_of(stream),
                "video.pix_fmt": context.pix_fmt,
                "video.is_depth_map": False,
                "video.fps": int(fps) if float(fps).is_integer() else fps,
                "video.channels": 3,
                "has_audio": False,
            }
    except (av.FFmpegError, IndexError) as error:
        raise UserError(f"{path} holds no video ({one_line(error)}): write it again") from error


def codec_of(stream: Any) -> str:
    """The codec of a stream of an open file, such as ``av1``, whatever decodes it."""
    return stream.codec_context.codec.canonical_name
