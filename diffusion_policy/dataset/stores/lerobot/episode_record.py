"""Where the episodes of a LeRobot dataset lie, the same for all versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusion_policy.dataset.video.segment import VideoSegment


@dataclass(frozen=True)
class EpisodeRecord:
    """Where one episode lies.

    Attributes:
        length: in steps, at least 1.
        tasks: what the robot was told to do; several where that changed.
        data_file: parquet file of the columns.
        first_row: of the episode in that file.
        videos: by camera.
        initial_state: of the simulator it was recorded in; None where there is none.
    """

    length: int
    tasks: tuple[str, ...]
    data_file: Path
    first_row: int
    videos: Mapping[str, VideoSegment]
    initial_state: tuple[float, ...] | None = None
