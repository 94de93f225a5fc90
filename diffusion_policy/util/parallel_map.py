"""Apply a slow function to every row of an array on all cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from diffusion_policy.util.cores import usable_cores
from diffusion_policy.util.errors import UserError

TIMEOUT_S = 600.0
"""A process that needs longer for a block of rows is taken to hang."""
_BLOCK = 64  # rows per task of a process


def parallel_map(
    function: Callable[[np.ndarray], np.ndarray],
    rows: np.ndarray,
    out: np.memmap,
    desc: str,
    n_workers: int | None = None,
) -> None:
    """Set ``out[i] = function(rows[i])`` for every i, with a progress bar.

    The processes are DataLoader workers: an exception in one is raised here, and they exit with
    this process, even if it is killed.

    Args:
        function: a pure function, defined at the top level of its module (it is pickled).
        rows: (N, ...).
        out: (N, ...), mapped from a ``.npy`` file; the processes fill it in place.
        desc: label of the progress bar.
        n_workers: number of processes; 0 works in this process. None starts one per usable core,
            but no more than there are full blocks of rows.

    Raises:
        UserError: a process hangs.
    """
    if n_workers is None:
        n_workers = min(usable_cores(), len(rows) // _BLOCK)
    loader = DataLoader(
        _Blocks(function, rows, str(out.filename)),
        batch_size=None,
        num_workers=n_workers,
        generator=torch.Generator(),  # the global generator would change the run
        timeout=TIMEOUT_S if n_workers else 0,
    )
    with tqdm(total=len(rows), desc=desc, disable=None) as progress, _hangs_are_told(desc):
        for n_filled in loader:
            progress.update(n_filled)


@contextmanager
def _hangs_are_told(desc: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "timed out" not in str(error):
            raise
        raise UserError(
            f"{desc}: a process has not answered for {TIMEOUT_S:.0f} s and seems to hang; start "
            "again, on a machine with less to do"
        ) from None


class _Blocks(Dataset):
    """Item i fills block i of the file and returns the number of its rows."""

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
