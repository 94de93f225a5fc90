"""The order of training data: a function of seed, epoch and position, so that it can resume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class BatchIndex(NamedTuple):
    """One batch to read.

    Attributes:
        samples: (B,) int64 sample numbers.
        seed: for the random choices that the whole batch shares.
    """

    samples: np.ndarray
    seed: int


class BatchOrder(Sampler[BatchIndex]):
    """Yields the batches of one epoch; hand it to a DataLoader as ``batch_sampler``.

    Args:
        n_samples: samples of the dataset.
        batch_size: samples a batch; the last batch of an epoch may hold fewer.
        seed: with the epoch it gives the order.
        shuffle: False keeps the order of the dataset.
        max_batches: end an epoch early after so many; None for all.
    """

    def __init__(
        self,
        n_samples: int,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        max_batches: int | None = None,
    ) -> None:
        self.n_samples = n_samples
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        n_batches = -(-n_samples // batch_size)
        self.n_batches = n_batches if max_batches is None else min(n_batches, max_batches)
        self.epoch = 0
        self.start = 0

    def seek(self, epoch: int, start: int = 0) -> None:
        """The next iteration yields batches ``start`` onwards of ``epoch``."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return self.n_batches - self.start

    def __iter__(self) -> Iterator[BatchIndex]:
        samples = np.arange(self.n_samples)
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(samples)
        for i in range(self.start, self.n_batches):
            chosen = samples[i * self.batch_size : (i + 1) * self.batch_size]
            seed = np.random.SeedSequence([self.seed, self.epoch, i]).generate_state(1)[0]
            yield BatchIndex(chosen, int(seed))


def as_is(batch: dict) -> dict:
    """Collate function for batches that the dataset has already gathered."""
    return batch
