"""Decode a few frames that follow a key frame."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from diffusion_policy.dataset.video.frame_table import Coding, FrameTable
from diffusion_policy.util.errors import UserError, one_line

_KEPT_OPEN = 8
"""Decoders of a thread: one serves all files that were encoded alike, as those of a camera are."""
# Threads of its own would keep a forked process waiting for ever, when it frees what it inherited.
# Earlier versions of PyAV have no such setting, and no such threads.
_ONE_THREAD: dict[str, Any] = (
    {"threads": 1} if "threads" in (VideoReformatter.reformat.__doc__ or "") else {}
)


class Run(NamedTuple):
    """Frames to decode from one key frame on.

    Attributes:
        table: of the file.
        first: packet of the key frame.
        packets: whose frames are wanted, in the order of decoding.
    """

    table: FrameTable
    first: int
    packets: Sequence[int]


def decode(run: Run) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the wanted packets in some order with their frames, (H, W, 3) uint8 RGB.

    Raises:
        UserError: the file is damaged.
    """
    table = run.table
    stop = run.packets[-1] + 1
    # The decoder hands the packet's time on to the frame: here its number stands for it.
    wanted = set(run.packets)
    found = 0
    try:
        decoder = _decoder(table)
        for number, frame in decoder.frames(table, run.first, stop):
            if number is not None and number in wanted:
                if frame.is_corrupt:
                    raise UserError(_damaged(table, "a frame is not whole"))
                found += 1
                yield number, decoder.rgb(frame)
    except (av.FFmpegError, OSError, ValueError) as error:
        _forget(table.coding)
        raise UserError(_damaged(table, one_line(error))) from error
    if found < len(wanted):
        raise UserError(_damaged(table, f"{len(wanted) - found} frames are missing"))


class _Decoder:
    """A decoder of one thread."""

    def __init__(self, table: FrameTable) -> None:
        # Opened for its decoder alone, which knows the colours that the file tells.
        self._container = av.open(str(table.path))
        self._context = self._container.streams.video[0].codec_context
        self._context.thread_count = 1  # batches keep all cores busy, and no frame waits for others
        # A header inside the stream could claim any size; decoders pad the true one.
        pixels = 4 * (table.coding.width + 64) * (table.coding.height + 64)
        self._context.options = {"max_pixels": str(pixels)}
        self._reformatter = VideoReformatter()

    def frames(
        self, table: FrameTable, first: int, stop: int
    ) -> Iterator[tuple[int | None, av.VideoFrame]]:
        """Yield numbers and frames of these packets, in the order of their times."""
        context = self._context
        if context.is_open:
            context.flush_buffers()
        with table.path.open("rb", buffering=0) as file:
            for number in range(first, stop):
                file.seek(int(table.positions[number]))
                packet = av.Packet(file.read(int(table.sizes[number])))
                packet.pts = number
                for frame in context.decode(packet):
                    yield frame.pts, frame
        for frame in context.decode(None):
            yield frame.pts, frame

    def rgb(self, frame: av.VideoFrame) -> np.ndarray:
        return self._reformatter.reformat(frame, format="rgb24", **_ONE_THREAD).to_ndarray()


_kept = threading.local()


def _decoder(table: FrameTable) -> _Decoder:
    """This thread's decoder for files like this one."""
    decoders: OrderedDict[Coding, _Decoder] = _kept.__dict__.setdefault("decoders", OrderedDict())
    coding = table.coding
    if coding not in decoders:
        decoders[coding] = _Decoder(table)
        if len(decoders) > _KEPT_OPEN:
            decoders.popitem(last=False)
    decoders.move_to_end(coding)
    return decoders[coding]


def _forget(coding: Coding) -> None:
    """After an error a decoder may be in any state."""
    _kept.__dict__.get("decoders", {}).pop(coding, None)


def _damaged(table: FrameTable, reason: str) -> str:
    return f"{table.path} cannot be decoded ({reason}): fetch the file again, or drop its episodes"
