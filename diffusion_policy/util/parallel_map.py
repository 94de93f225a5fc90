"""A slow function applied to every row of an array, on all cores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from diffusion_policy.util.cores import usable_cores

_BLOCK = 64  # rows that a process fills at a time


def parallel_map(
    function: Callable[[np.ndarray], np.ndarray],
    rows: np.ndarray,
    out: np.memmap,
    desc: str,
    n_workers: int | None = None,
) -> None:
    """Set ``out[i] = function(rows[i])`` for every i, with a progress bar.

    The processes are those of a DataLoader: an exception in one is raised here, and they end when
    this process does, even if it is killed.

    Args:
        function: a pure function, known by name to its module.
        rows: (N, ...).
        out: (N, ...), mapped from a ``.npy`` file, which the processes fill in place.
        desc: what the progress bar says.
        n_workers: processes, 0 for this one alone; None takes one a usable core, but none where
            a core would have less than a block to do.
    """
    if n_workers is None:
        n_workers = min(usable_cores(), len(rows) // _BLOCK)
    loader = DataLoader(
        _Blocks(function, rows, str(out.filename)),
        batch_size=None,
        num_workers=n_workers,
        generator=torch.Generator(),  # else it draws from the global one, and changes the run
    )
    with tqdm(total=len(rows), desc=desc) as progress:
        for n_filled in loader:
            progress.update(n_filled)


class _Blocks(Dataset):
    """Item i fills block i of the file and is the number of its rows."""

    def __init__(
        self, function: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, path: str
    ) -> None:
        self.function, self.rows, self.path = function, rows, path

    def __len__(self) -> int:
        return -(-len(self.rows) // _BLOCK)

    def __getitem__(self, index: int) -> int:
        block = slice(index * _BLOCK, (index + 1) * _BLOCK)
        filled = [self.function(row) for row in self.rows[block]]
        np.load(self.path, mmap_mode="r+")[block] = filled
        return len(filled)
