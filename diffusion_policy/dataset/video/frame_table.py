"""Where the frames of a video lie in its file, found without decoding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.codec.codec import UnknownCodecError

from diffusion_policy.util.errors import UserError, one_line

TOLERANCE_S = 1e-4
"""How far a recorded time, or that of a frame, may lie from where it belongs, as lerobot has it."""
_CODECS = ("av1", "h264", "hevc", "vp9")
"""Those whose decoders give the same frame after any jump; that of MPEG-4 part 2 does not."""
_AGAIN = "fetch the file again, or encode the video anew as a plain mp4"


class Coding(NamedTuple):
    """What a decoder must know before the first packet; equal for files of one camera.

    Attributes:
        codec: name of the decoder.
        header: bytes that set the decoder up.
        width, height: in pixels.
    """

    codec: str
    header: bytes
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class FrameTable:
    """The packets of a video file in the order of decoding; each holds one frame.

    Attributes:
        path: of the file.
        coding: of its video stream.
        times: (n,) float64 s, when each frame is shown.
        positions: (n,) int64, first byte of each packet in the file.
        sizes: (n,) int64, of each packet in bytes.
        keys: indices of the packets that can be decoded without an earlier one.
        shown: packets that are shown, in the order of their times.
    """

    path: Path
    coding: Coding
    times: np.ndarray
    positions: np.ndarray
    sizes: np.ndarray
    keys: np.ndarray
    shown: np.ndarray

    def find(self, times: np.ndarray) -> np.ndarray:
        """Packets (n,) of the frames that are shown at these times in seconds (n,).

        Raises:
            UserError: there is none within :data:`TOLERANCE_S`.
        """
        known = self.times[self.shown]
        after = np.searchsorted(known, times).clip(1, max(1, len(known) - 1))
        before = after - 1
        after = np.minimum(after, len(known) - 1)
        nearest = np.where(times - known[before] <= known[after] - times, before, after)
        far = np.flatnonzero(np.abs(known[nearest] - times) > TOLERANCE_S)
        if far.size:
            wanted, found = times[far[0]], known[nearest[far[0]]]
            raise UserError(
                f"{self.path} has no frame at {wanted:.4f} s, the nearest is at {found:.4f} s of "
                f"{known[0]:.4f} to {known[-1]:.4f} s: frames and recorded steps do not fit, so "
                "fetch the file again, or drop the episode"
            )
        return self.shown[nearest]

    def starts(self, packets: np.ndarray) -> np.ndarray:
        """For each of these packets (n,) the key packet that decoding begins with.

        It is the last one that is neither decoded nor shown later: pictures that are shown before
        the key frame that they follow refer to the one before it.

        Raises:
            UserError: there is none.
        """
        chosen = np.searchsorted(self.keys, packets, side="right") - 1
        while True:
            shown_later = self.times[self.keys[chosen]] > self.times[packets]
            if (chosen < shown_later).any():
                raise UserError(f"{self.path} does not begin with a key frame: {_AGAIN}")
            if not shown_later.any():
                return self.keys[chosen]
            chosen = chosen - shown_later


def read_frame_table(path: Path, most_frames: int) -> FrameTable:
    """The table of a video file.

    Args:
        most_frames: that the file may hold; more are not read.

    Raises:
        UserError: the file is missing, damaged, of a kind whose packets do not lie in it as they
            are decoded, or holds more frames than that.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: fetch the data set again, with its videos")
    try:
        with av.open(str(path)) as container:
            return _table(path, container, most_frames)
    except (av.FFmpegError, UnknownCodecError, OSError, ValueError) as error:
        raise UserError(f"{path} is no readable video ({one_line(error)}): {_AGAIN}") from error


def _table(path: Path, container: av.container.InputContainer, most_frames: int) -> FrameTable:
    if not container.streams.video:
        raise UserError(f"{path} holds no video: {_AGAIN}")
    stream = container.streams.video[0]
    context = stream.codec_context
    codec = "of an unknown codec" if context is None else context.codec.canonical_name
    if codec not in _CODECS or stream.time_base is None:
        raise UserError(
            f"{path} holds {codec} video, which is not read: encode it anew as AV1, H.264 or H.265"
        )
    rows: list[tuple[int, int, int, bool, bool]] = []
    with path.open("rb") as file:
        for packet in container.demux(stream):
            if not packet.size:  # the end
                continue
            if packet.pts is None or packet.pos is None or packet.pos < 0:
                raise UserError(f"{path} has frames without a time or place: {_AGAIN}")
            if len(rows) == most_frames:
                raise UserError(
                    f"{path} holds more than {most_frames} frames, but fewer steps were recorded: "
                    "it belongs to another data set"
                )
            if not rows:
                file.seek(packet.pos)
                if file.read(packet.size) != bytes(packet):
                    raise UserError(f"{path} stores its frames in an unknown way: {_AGAIN}")
            rows.append(
                (packet.pts, packet.pos, packet.size, packet.is_keyframe, packet.is_discard)
            )
    if not rows:
        raise UserError(f"{path} holds no frame: {_AGAIN}")
    pts, positions, sizes, is_key, is_hidden = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    order = np.argsort(pts, kind="stable")
    return FrameTable(
        path,
        Coding(context.codec.name, context.extradata or b"", context.width, context.height),
        pts * float(stream.time_base),
        positions,
        sizes,
        np.flatnonzero(is_key),
        order[~is_hidden[order]],
    )
