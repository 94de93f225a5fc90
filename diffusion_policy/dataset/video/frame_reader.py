"""Read any frames of many video files at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from diffusion_policy.dataset.video.decoder import Run, decode
from diffusion_policy.dataset.video.frame_table import FrameTable, read_frame_table
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.threads import run_in_threads

Change = Callable[[np.ndarray], np.ndarray]


class FrameReader:
    """The frames of one camera in several files.

    Frames that follow one key frame are decoded together, and several such groups at once. The
    tables of the files are read when they are first needed, and kept. A reader may be pickled, and
    used after a fork.

    Args:
        files: mp4 files.
        shape: (3, H, W) of a frame.
        most_frames: that a file may hold.
        change: of decoded frames (3, H, W) to those that are returned, run in the threads; None
            returns them as they are.
    """

    def __init__(
        self,
        files: Sequence[Path],
        shape: tuple[int, ...],
        most_frames: int,
        change: Change | None = None,
    ) -> None:
        self.files = files
        self.shape = shape
        self.most_frames = most_frames
        self.change = change
        self._tables: dict[int, FrameTable] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": {}}

    def read_into(self, out: np.ndarray, files: np.ndarray, times: np.ndarray) -> None:
        """Fill ``out`` (n, 3, H, W) uint8, row by row of any memory, with frames.

        Args:
            files: (n,) numbers of the files.
            times: (n,) seconds at which the frames are shown in them.

        Raises:
            UserError: a file is missing or damaged, has frames of another size, or none at a time.
        """
        runs = []
        for file in np.unique(files):
            rows = np.flatnonzero(files == file)
            runs += self._runs(int(file), rows, times[rows])

        def fill(run: tuple[Run, dict[int, list[int]]]) -> None:
            wanted, rows_of = run
            for packet, frame in decode(wanted):
                first, *others = rows_of[packet]
                self._write(frame, out[first], wanted.table.path)
                for row in others:
                    out[row] = out[first]

        run_in_threads(fill, runs)

    def table(self, file: int) -> FrameTable:
        """The table of a file."""
        if file not in self._tables:
            self._tables[file] = read_frame_table(self.files[file], self.most_frames)
        return self._tables[file]

    def _runs(
        self, file: int, rows: np.ndarray, times: np.ndarray
    ) -> list[tuple[Run, dict[int, list[int]]]]:
        """What to decode of one file, each with the rows that each packet goes to."""
        table = self.table(file)
        packets = table.find(times)
        order = np.argsort(packets, kind="stable")
        wanted = zip(
            table.starts(packets)[order].tolist(),
            packets[order].tolist(),
            rows[order].tolist(),
            strict=True,
        )
        runs = []
        for start, group in groupby(sorted(wanted), key=lambda entry: entry[0]):
            rows_of: dict[int, list[int]] = {}
            for _, packet, row in group:
                rows_of.setdefault(packet, []).append(row)
            runs.append((Run(table, start, list(rows_of)), rows_of))
        return runs

    def _write(self, frame: np.ndarray, out: np.ndarray, path: Path) -> None:
        """Put one (H, W, 3) frame where it belongs, channels first."""
        channels_first = (3, *frame.shape[:2])
        if channels_first != tuple(self.shape):
            raise UserError(
                f"{path} has frames of {frame.shape[0]} x {frame.shape[1]} pixels, but "
                f"meta/info.json says {self.shape[1]} x {self.shape[2]}: correct the shape there, "
                "or fetch the file again"
            )
        if self.change is None:
            cv2.split(frame, list(out))
        else:
            planes = np.empty(channels_first, np.uint8)
            cv2.split(frame, list(planes))
            out[...] = self.change(planes)
