"""Rollout videos: H.264 in mp4, complete under their final name or not there at all."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.codec.codec import UnknownCodecError

from diffusion_policy.util.errors import one_line

_WRITE_ERRORS = (OSError, av.FFmpegError, UnknownCodecError)


class VideoWriter:
    """Writes RGB frames to ``path``; the file appears under that name when :meth:`close` is done.

    Args:
        path: target, overwritten; its folder is created.
        fps: frames per second.
        crf: constant rate factor of x264, 0 (lossless) to 51. At 26 an episode of PushT, 300
            steps of 512 x 512 pixels, takes less than 100 kB.
    """

    def __init__(self, path: str | Path, fps: int = 10, crf: int = 26) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._frame_shape: tuple[int, ...] | None = None
        self._partial.unlink(missing_ok=True)  # a link would be written through
        # faststart puts the index first, so that a browser plays the file while it loads.
        self._container = av.open(
            str(self._partial), "w", format="mp4", options={"movflags": "faststart"}
        )
        try:
            self._stream = self._container.add_stream(
                "libx264", rate=fps, options={"crf": str(crf), "preset": "veryfast"}
            )
        except BaseException:
            self.discard()
            raise
        # Many writers run side by side, each in a worker that has one core.
        self._stream.codec_context.thread_count = 1
        self._stream.pix_fmt = "yuv420p"  # the only layout that every player reads

    def write(self, frame: np.ndarray) -> None:
        """Append one frame, (H, W, 3) uint8 RGB; odd sizes are padded by repeating the edge."""
        height, width, _ = frame.shape
        # yuv420p stores colour for blocks of 2 x 2 pixels.
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._frame_shape is None:
            self._frame_shape = frame.shape
            self._stream.height, self._stream.width = frame.shape[:2]
        elif frame.shape != self._frame_shape:
            raise ValueError(f"frame of shape {frame.shape} in a video of {self._frame_shape}")
        self._encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"))

    def _encode(self, frame: av.VideoFrame | None) -> None:
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file and give it its name."""
        if self._frame_shape is not None:
            self._encode(None)  # drains the encoder
        self._container.close()
        self._partial.replace(self.path)

    def discard(self) -> None:
        """Stop without leaving a file."""
        try:
            self._container.close()
        finally:
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error_type is None:
            self.close()
        else:
            self.discard()


class ByproductVideo:
    """A video of something that matters more: where it cannot be written, a warning says so.

    Args:
        path, fps: see :class:`VideoWriter`.
    """

    def __init__(self, path: str | Path, fps: int) -> None:
        self.path = Path(path)
        self._writer: VideoWriter | None = None
        with self._warning():
            self._writer = VideoWriter(path, fps)

    def write(self, frame: np.ndarray) -> None:
        """See :meth:`VideoWriter.write`."""
        if self._writer is not None:
            with self._warning():
                self._writer.write(frame)

    def close(self) -> None:
        """See :meth:`VideoWriter.close`."""
        if self._writer is not None:
            with self._warning():
                self._writer.close()

    def discard(self) -> None:
        """See :meth:`VideoWriter.discard`."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(*_WRITE_ERRORS):
                writer.discard()

    @contextmanager
    def _warning(self) -> Iterator[None]:
        try:
            yield
        except _WRITE_ERRORS as error:
            self.discard()
            print(f"warning: no video {self.path}: {one_line(error)}", file=sys.stderr, flush=True)


def read_video(path: str | Path, indices: Sequence[int] | None = None) -> np.ndarray:
    """The frames of a video at ``indices`` (all when None), (n, H, W, 3) uint8 RGB."""
    with av.open(str(path)) as container:
        frames = {
            index: frame.to_ndarray(format="rgb24")
            for index, frame in enumerate(container.decode(video=0))
            if indices is None or index in indices
        }
    return np.stack([frames[index] for index in (frames if indices is None else indices)])
