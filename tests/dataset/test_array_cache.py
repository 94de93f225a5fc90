from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.dataset.array_cache import cached_array, read_ahead

N_ROWS = 7


@pytest.fixture(scope="module")
def mapped(tmp_path_factory) -> np.ndarray:
    """Rows of 3,000 bytes: some share a page, others cross one."""

    def fill(out: np.memmap) -> None:
        out[:] = np.arange(N_ROWS)[:, None, None]

    path = tmp_path_factory.mktemp("cache") / "rows.npy"
    return cached_array(path, (N_ROWS, 30, 100), np.uint8, fill)


@given(rows=st.lists(st.lists(st.integers(0, N_ROWS - 1), min_size=2, max_size=2), max_size=6))
def test_any_rows_can_be_read_ahead(mapped, rows):
    rows = np.array(rows, dtype=np.int64).reshape(-1, 2)
    read_ahead(mapped, rows)  # the system refuses what lies outside the file
    assert (mapped[rows] == rows[..., None, None]).all()


def test_arrays_in_memory_need_no_reading_ahead():
    read_ahead(np.zeros((3, 2)), np.array([0, 2]))
