import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_policy.util import parallel_map as module
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.parallel_map import parallel_map


def square_and_process(row: np.ndarray) -> np.ndarray:
    return np.array([row[0] ** 2, os.getpid()])


def refuse(row: np.ndarray) -> np.ndarray:
    raise ValueError("no such row")


def mapped(path: Path, n_rows: int) -> np.memmap:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.int64, shape=(n_rows, 2))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("n_workers", [0, 2])
def test_every_row_is_mapped_in_its_place(tmp_path, n_workers):
    rows, out = np.arange(200)[:, None], mapped(tmp_path / "out.npy", 200)
    before = torch.get_rng_state()
    parallel_map(square_and_process, rows, out, "squares", n_workers)
    np.testing.assert_array_equal(out[:, 0], rows[:, 0] ** 2)
    assert torch.equal(torch.get_rng_state(), before)
    processes = set(out[:, 1])
    assert processes == {os.getpid()} if n_workers == 0 else len(processes - {os.getpid()}) == 2


def test_a_worker_passes_its_error_on(tmp_path):
    with pytest.raises(ValueError, match="no such row"):
        parallel_map(refuse, np.zeros((70, 1)), mapped(tmp_path / "out.npy", 70), "none", 1)


def sleep(row: np.ndarray) -> np.ndarray:
    time.sleep(1000)
    return row


@pytest.mark.slow
def test_a_worker_that_hangs_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_S", 0.5)
    with pytest.raises(UserError, match="squares: a process has not answered"):
        parallel_map(sleep, np.zeros((70, 1)), mapped(tmp_path / "out.npy", 70), "squares", 1)
