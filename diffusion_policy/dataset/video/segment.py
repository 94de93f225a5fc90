"""Where the frames of one episode lie in a video file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class VideoSegment:
    """The frames of one episode and camera.

    Attributes:
        path: of the file, which may hold other episodes, too.
        from_timestamp: presentation time of the episode's first frame in that file, in seconds.
    """

    path: Path
    from_timestamp: float = 0.0
