"""The latest observations of an episode, at the times that a policy reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class ObservationHistory:
    """Keeps as many observations as ``offsets`` reach back.

    Offsets before the first observation of the episode give the first one.

    Args:
        offsets: times of the To observations to read, in control steps relative to the latest
            observation (0); ascending, at most 0.
    """

    def __init__(self, offsets: Sequence[int]) -> None:
        if list(offsets) != sorted(offsets) or offsets[-1] > 0:
            raise ValueError(f"offsets {tuple(offsets)} must be ascending and at most 0")
        self.offsets = tuple(offsets)
        self._observations: deque[dict[str, Any]] = deque(maxlen=1 - self.offsets[0])

    def __len__(self) -> int:
        return len(self._observations)

    def clear(self) -> None:
        """Forget the episode."""
        self._observations.clear()

    def append(self, observation: Mapping[str, Any]) -> None:
        """Add the next observation: arrays, which are copied, and texts."""
        # Copied, because an environment may go on writing into the array it handed out.
        self._observations.append(
            {
                key: value if isinstance(value, str) else np.array(value)
                for key, value in observation.items()
            }
        )

    def read(self) -> list[dict[str, Any]]:
        """The To observations at ``offsets``, oldest first."""
        # Index -1 is the latest. The first entry is either the start of the episode or, once the
        # history is full, exactly the oldest offset.
        oldest = -len(self._observations)
        return [self._observations[max(oldest, offset - 1)] for offset in self.offsets]
