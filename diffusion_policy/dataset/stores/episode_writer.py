"""The contract of writing episodes, whatever holds them: the counterpart of a store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from diffusion_policy.dataset.stores.episode_store import EpisodeInfo


class Rows(Protocol):
    """An array (L, ...), or something that reads those of its rows that are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(L, ...)."""

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers."""

    def __getitem__(self, steps: Any, /) -> np.ndarray:
        """The rows of a slice, or of an array of steps."""


Values = Mapping[str, Rows | Sequence[str]]
"""Of one episode of L steps, by key: an array (L, ...), or L texts."""


class EpisodeWriter(ABC):
    """Adds episodes to a data set, one by one.

    The first episode decides keys, shapes and types. Pictures are uint8 (L, 3, H, W) or
    (L, H, W, 3), depth uint16 millimetres (L, 1, H, W) or (L, H, W). The key ``task`` holds the
    text of the task at each step, where it changes within an episode.

    An episode is whole on the disk when :meth:`add_episode` returns. A process that is killed at
    any moment loses at most the episode that it was writing, and a new writer of the same place
    goes on with the next one. A place has one writer at a time.

    Used as a context manager, it finishes the data set unless the block fails.
    """

    @property
    @abstractmethod
    def n_episodes(self) -> int:
        """Number of episodes that are on the disk."""

    @abstractmethod
    def add_episode(self, values: Values, info: EpisodeInfo | None = None) -> None:
        """Append one episode of at least one step.

        Args:
            values: of each step.
            info: its task and initial state; a task at each step in ``values`` goes before.

        Raises:
            UserError: lengths that differ, keys, shapes or types that do not fit the format or the
                earlier episodes, or a full disk. All earlier episodes are still there.
        """

    @abstractmethod
    def finish(self) -> None:
        """Put the data set in its final form. It can be read before, too, and be added to later.

        Raises:
            UserError: a full disk; the data set is as it was before.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error_type is None:
            self.finish()
