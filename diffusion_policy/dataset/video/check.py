"""Check that a video holds the frames of its episodes, each at its time, and decodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from diffusion_policy.dataset.video.frame_table import TOLERANCE_S
from diffusion_policy.dataset.video.packet_copy import Part
from diffusion_policy.util.errors import UserError, one_line


def check_video(path: Path, parts: Sequence[Part], fps: float, size: tuple[int, int]) -> None:
    """Find all frames of a file by their times, and decode the first and last of each part.

    Args:
        parts: the episodes in the file; together they have all of its frames.
        size: height and width.

    Raises:
        UserError: another number of frames, one that lacks or lies elsewhere, another size, or
            something that does not decode.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            packets: Any = container.demux(stream)
            times = np.sort([_time(p) for p in packets if p.pts is not None and p.size])
            _check_times(path, times, parts, fps)
            for part in parts:
                start = part.segment.from_timestamp
                for time in (start, start + (part.length - 1) / fps):
                    frame = _decode(container, stream, time)
                    if frame is None:
                        raise UserError(f"{path} has no frame at {time:g} s: write it again")
                    if (frame.height, frame.width) != tuple(size):
                        raise UserError(
                            f"{path} has frames of {frame.height} x {frame.width} pixels, but its "
                            f"feature is {size[0]} x {size[1]}: correct meta/info.json"
                        )
    except (av.FFmpegError, OSError, IndexError) as error:
        raise UserError(
            f"{path} cannot be decoded ({one_line(error)}): fetch or write it again"
        ) from error


def _check_times(path: Path, times: np.ndarray, parts: Sequence[Part], fps: float) -> None:
    wanted = np.sort(
        np.concatenate([p.segment.from_timestamp + np.arange(p.length) / fps for p in parts])
    )
    if len(times) != len(wanted):
        raise UserError(
            f"{path} has {len(times)} frames, but its episodes have {len(wanted)} steps: fetch or "
            "write it again"
        )
    wrong = np.flatnonzero(np.abs(times - wanted) > TOLERANCE_S)
    if wrong.size:
        frame = int(wrong[0])
        raise UserError(
            f"{path} shows frame {frame} at {times[frame]:g} s, not at {wanted[frame]:g} s: write "
            "it again"
        )


def _time(packet: Any) -> float:
    """When a packet is shown, in seconds."""
    return float(packet.pts * packet.time_base)


def _decode(container: Any, stream: Any, time: float) -> av.VideoFrame | None:
    """The frame at a time."""
    container.seek(max(0, int((time + TOLERANCE_S) / stream.time_base)), stream=stream)
    for frame in container.decode(stream):
        distance = float(frame.pts * stream.time_base) - time
        if abs(distance) <= TOLERANCE_S:
            return frame
        if distance > TOLERANCE_S:
            return None
    return None
