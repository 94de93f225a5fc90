"""Cut and join videos without decoding them: what was encoded stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from diffusion_policy.dataset.video.encoder import codec_of, frame_rate
from diffusion_policy.dataset.video.segment import VideoSegment
from diffusion_policy.util.errors import UserError, one_line


class NotCopyableError(Exception):
    """The frames cannot be taken out of their file without encoding them again."""


@dataclass(frozen=True)
class Part:
    """``length`` frames from the start of a segment on."""

    segment: VideoSegment
    length: int


@dataclass(frozen=True)
class Layout:
    """What two videos must share to be joined in one file.

    Attributes:
        codec: its name.
        size: height and width.
        pixel_format: such as ``yuv420p``.
        header: settings that the decoder is given once a file.
        delay: frames that are decoded before the first one can be shown.
    """

    codec: str
    size: tuple[int, int]
    pixel_format: str | None
    header: bytes
    delay: int


def read_layout(part: Part, fps: float) -> Layout:
    """The layout of a part.

    Raises:
        NotCopyableError: its frames cannot be taken out of their file.
        UserError: the file is missing or damaged.
    """
    with _opened(part.segment.path) as container:
        stream = container.streams.video[0]
        return _layout(stream, _packets(container, stream, part, frame_rate(fps)))


def copy_parts(path: Path, parts: Sequence[Part], fps: float) -> None:
    """Join parts in the file ``path``, frame k of all at k / fps seconds.

    Raises:
        NotCopyableError: a part does not begin with a key frame, needs frames that lie outside it,
            has frames off the grid of ``fps``, or differs from the first in its layout.
        UserError: a file is missing or damaged.
        OSError: the disk is full, or ``path`` cannot be written.
    """
    rate = frame_rate(fps)
    output, first_layout, n_frames = None, None, 0
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as target:
        for part in parts:
            with _opened(part.segment.path) as source:
                stream = source.streams.video[0]
                packets = _packets(source, stream, part, rate)
                layout = _layout(stream, packets)
                if output is None:
                    output = target.add_stream_from_template(stream, opaque=True)
                    output.time_base = 1 / rate
                    first_layout = layout
                elif layout != first_layout:
                    raise NotCopyableError(f"{part.segment.path} is encoded in another way")
                for packet, pts, dts in _timed(packets, layout.delay):
                    packet.stream = output
                    packet.time_base = 1 / rate
                    packet.pts, packet.dts = n_frames + pts, n_frames + dts
                    packet.duration = 1
                    target.mux(packet)
                n_frames += part.length


class _opened:  # noqa: N801 -- used like a function
    """An open video file; errors of reading it are the user's."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Any:
        try:
            self.container = av.open(str(self.path))
            if not self.container.streams.video:
                raise UserError(f"{self.path} holds no video: fetch the data set again")
        except (av.FFmpegError, OSError) as error:
            raise UserError(
                f"{self.path} cannot be read ({one_line(error)}): fetch the data set again"
            ) from error
        return self.container

    def __exit__(self, *_: object) -> None:
        self.container.close()


def _packets(container: Any, stream: Any, part: Part, rate: Fraction) -> list[Any]:
    """The packets of a part, in their order in the file."""
    start = part.segment.from_timestamp
    seek_to = max(0, int(start / stream.time_base))
    container.seek(seek_to, stream=stream)
    found: list[Any] = []
    for packet in _demux(container, stream, part.segment.path):
        frame = (packet.pts * stream.time_base - Fraction(start)) * rate
        if not found and not (packet.is_keyframe and abs(frame) < Fraction(1, 2)):
            if frame >= 1:
                break
            continue
        found.append(packet)
        if len(found) == part.length:
            _check_grid(found, stream, rate, part.segment.path)
            return found
    raise NotCopyableError(
        f"{part.segment.path} has no key frame at {start:g} s with {part.length} frames from there"
    )


def _demux(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    try:
        # The last packet of a file is empty.
        yield from (p for p in container.demux(stream) if p.pts is not None and p.size)
    except av.FFmpegError as error:
        raise UserError(
            f"{path} cannot be read ({one_line(error)}): fetch the data set again"
        ) from error


def _check_grid(packets: Sequence[Any], stream: Any, rate: Fraction, path: Path) -> None:
    """Frames lie one step apart, so none of them belongs to another part, and none is missing."""
    times = sorted(packet.pts for packet in packets)
    first = packets[0].pts
    for k, pts in enumerate(times):
        if abs((pts - first) * stream.time_base * rate - k) >= Fraction(1, 2):
            raise NotCopyableError(f"{path} has frames off the grid of {float(rate):g} fps")


def _layout(stream: Any, packets: Sequence[Any]) -> Layout:
    context = stream.codec_context
    return Layout(
        codec_of(stream),
        (context.height, context.width),
        context.pix_fmt,
        bytes(context.extradata or b""),
        max(j - rank for j, rank in enumerate(_ranks(packets))),
    )


def _ranks(packets: Sequence[Any]) -> list[int]:
    """The place of each packet in the order in which frames are shown."""
    rank = {pts: k for k, pts in enumerate(sorted(packet.pts for packet in packets))}
    return [rank[packet.pts] for packet in packets]


def _timed(packets: Sequence[Any], delay: int) -> Iterator[tuple[Any, int, int]]:
    """Each packet with the frame times at which it is shown and decoded."""
    for j, (packet, rank) in enumerate(zip(packets, _ranks(packets), strict=True)):
        yield packet, rank, j - delay
