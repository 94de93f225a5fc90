"""The images of one camera in all episodes of a data set, from its videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diffusion_policy.dataset.file_digests import file_digests
from diffusion_policy.dataset.image_cache import ImageSource
from diffusion_policy.dataset.video.frame_reader import Change, FrameReader
from diffusion_policy.dataset.video.segment import VideoSegment

_BLOCK = 512
"""Steps decoded at a time to fill a cache: two key frames of x264, which are 250 steps apart."""
_DECODER_VERSION = "1"  # part of the cache key: raise it when pixels change


class VideoSource(ImageSource):
    """N steps of E episodes, of which step k of an episode is shown k / fps after its first.

    Args:
        segments: (E,) where each episode begins.
        episode_ends: (E,) cumulative step counts.
        fps: steps per second.
        shape: (3, H, W) of the frames.
        cache_dir: where digests of the files are remembered.
        change: of each image, to ``changed_shape``; its name is ``change_name``.
    """

    def __init__(
        self,
        segments: Sequence[VideoSegment],
        episode_ends: np.ndarray,
        fps: float,
        shape: tuple[int, ...],
        cache_dir: Path,
        change: Change | None = None,
        changed_shape: tuple[int, ...] | None = None,
    ) -> None:
        self.n = int(episode_ends[-1])
        self.shape = changed_shape or shape
        self._cache_dir = cache_dir
        self._ends = episode_ends
        self._first_steps = np.concatenate([[0], episode_ends[:-1]])
        self._fps = fps
        numbers = {segment.path: None for segment in segments}
        self._files = list(numbers)
        number_of = {path: i for i, path in enumerate(self._files)}
        self._file_of = np.array([number_of[segment.path] for segment in segments])
        self._begins = np.array([segment.from_timestamp for segment in segments])
        # Files may end with a few frames more than were recorded.
        self._reader = FrameReader(self._files, shape, 2 * self.n + 1000, change)

    def check(self) -> None:
        """Decode the first frame of all, and look whether the other files are there.

        Raises:
            UserError: a file is missing, or the first one cannot be decoded or does not fit.
        """
        for path in self._files:
            if not path.is_file():
                self._reader.table(self._files.index(path))  # tells that it is missing
        self.read(np.zeros(1, np.int64))

    def read(self, steps: np.ndarray) -> np.ndarray:
        """See :class:`ImageSource`."""
        images = np.empty((len(steps), *self.shape), np.uint8)
        self._read_into(images, steps)
        return images

    def fill(self, out: np.ndarray, desc: str) -> None:
        """See :class:`ImageSource`."""
        with tqdm(total=self.n, desc=desc, disable=None) as progress:
            for first in range(0, self.n, _BLOCK):
                steps = np.arange(first, min(first + _BLOCK, self.n))
                self._read_into(out[first : first + _BLOCK], steps)
                progress.update(len(steps))

    def made_from(self) -> str:
        """See :class:`ImageSource`."""
        digests = file_digests(self._files, self._cache_dir)
        places = (self._file_of.tolist(), self._begins.tolist(), self._ends.tolist(), self._fps)
        return repr((_DECODER_VERSION, digests, places))

    def _read_into(self, out: np.ndarray, steps: np.ndarray) -> None:
        episodes = np.searchsorted(self._ends, steps, side="right")
        times = self._begins[episodes] + (steps - self._first_steps[episodes]) / self._fps
        self._reader.read_into(out, self._file_of[episodes], times)
