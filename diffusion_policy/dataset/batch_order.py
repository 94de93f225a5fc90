"""The order of training data is a function of seed, epoch and position, so that it can resume.

This module imports no torch; a DataLoader accepts any iterable as its ``batch_sampler``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np


class BatchIndex(NamedTuple):
    """The index of one batch to read.

    Attributes:
        samples: (B,) int64 sample numbers.
        seed: seed of the random choices that the whole batch shares.
    """

    samples: np.ndarray
    seed: int


class BatchPart(NamedTuple):
    """The rows of a batch that one process works on, and the seeds of its random numbers.

    Attributes:
        start, stop: range of these rows, at least one row.
        total: number of rows of the whole batch.
        seed: seed of the draws for the whole batch.
        own_seed: seed of the draws of this process alone, such as dropout.
        share: weight of this process's mean loss in the full-batch loss.
    """

    start: int
    stop: int
    total: int
    seed: int
    own_seed: int
    share: float


class BatchOrder:
    """Yield the batches of one epoch; pass it to a DataLoader as ``batch_sampler``.

    Args:
        n_samples: number of samples per epoch.
        batch_size: samples per batch over all processes; the last batch of an epoch may hold
            fewer.
        seed: decides the order together with the epoch.
        shuffle: False keeps the order of the dataset.
        max_batches: maximum number of batches per epoch; None reads all.
        rank: number of this process, which yields its part of each batch.
        n_processes: number of processes that share each batch.
        draw: returns the samples (n_samples,) of an epoch from a generator, as
            :meth:`BaseDataset.draw_epoch` does; None follows ``shuffle``.
    """

    def __init__(
        self,
        n_samples: int,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        max_batches: int | None = None,
        rank: int = 0,
        n_processes: int = 1,
        draw: Callable[[np.random.Generator], np.ndarray] | None = None,
    ) -> None:
        self.n_samples = n_samples
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        n_batches = -(-n_samples // batch_size)
        self.n_batches = n_batches if max_batches is None else min(n_batches, max_batches)
        self.rank = rank
        self.n_processes = n_processes
        self.draw = draw
        self.epoch = 0
        self.start = 0

    def seek(self, epoch: int, start: int = 0) -> None:
        """Let the next iteration start at batch ``start`` of ``epoch``."""
        self.epoch, self.start = epoch, start

    def part(self, i: int) -> BatchPart:
        """Return the part of this process in batch ``i`` of the current epoch."""
        total = min(self.batch_size, self.n_samples - i * self.batch_size)
        start, stop = (total * number // self.n_processes for number in (self.rank, self.rank + 1))
        share = (stop - start) / total
        if share == 0:  # more processes than rows: work on row 0 with weight 0
            start, stop = 0, 1
        return BatchPart(
            start, stop, total, self._seed_of(i), self._seed_of(i, self.rank + 1), share
        )

    def _seed_of(self, i: int, *more: int) -> int:
        return int(np.random.SeedSequence([self.seed, self.epoch, i, *more]).generate_state(1)[0])

    def _samples(self) -> np.ndarray:
        """Return the samples (n_samples,) of the current epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.draw is not None:
            return self.draw(rng)
        samples = np.arange(self.n_samples)
        if self.shuffle:
            rng.shuffle(samples)
        return samples

    def __len__(self) -> int:
        return self.n_batches - self.start

    def __iter__(self) -> Iterator[BatchIndex]:
        samples = self._samples()
        for i in range(self.start, self.n_batches):
            part, first = self.part(i), i * self.batch_size
            yield BatchIndex(samples[first + part.start : first + part.stop], part.seed)


def as_is(batch: dict) -> dict:
    """Return a batch unchanged; collate function for batches that the dataset has gathered."""
    return batch
