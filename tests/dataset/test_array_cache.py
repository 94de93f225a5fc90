from __future__ import annotations

import mmap
import resource

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.dataset.array_cache import cached_array, read_ahead
from diffusion_policy.util.errors import UserError

N_ROWS = 7


@pytest.fixture(scope="module")
def mapped(tmp_path_factory) -> np.ndarray:
    """Rows of 3,000 bytes: some share a page, others cross one."""

    def fill(out: np.memmap) -> None:
        out[:] = np.arange(N_ROWS)[:, None, None]

    path = tmp_path_factory.mktemp("cache") / "rows.npy"
    return cached_array(path, (N_ROWS, 30, 100), np.uint8, fill)


def test_an_array_is_made_once_and_again_after_it_was_cut(tmp_path):
    path, made = tmp_path / "sub" / "a.npy", []

    def fill(out: np.memmap) -> None:
        made.append(out.shape)
        out[:] = 7

    for _ in range(2):
        assert (cached_array(path, (50, 4), np.float32, fill) == 7).all()
        assert len(made) == 1
    path.write_bytes(path.read_bytes()[:-1])
    assert (cached_array(path, (50, 4), np.float32, fill) == 7).all()
    assert len(made) == 2


def test_a_full_disk_is_told_before_anything_is_written(tmp_path):
    def fill(out: np.memmap) -> None:
        raise AssertionError("a page without room would kill the process")

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_100, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*a\.npy: .*; free space"):
            cached_array(tmp_path / "a.npy", (100, 100), np.uint8, fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/a\.npy"):
        cached_array(tmp_path / "file" / "a.npy", (1,), np.uint8, print)


class Watched:
    """Forward advice about a map and record its pages."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self.mapping = mapping
        self.pages: set[int] = set()

    def madvise(self, option: int, start: int, length: int) -> None:
        assert option == mmap.MADV_WILLNEED
        assert start % mmap.PAGESIZE == 0
        self.mapping.madvise(option, start, length)  # the system refuses what lies outside
        self.pages |= pages(start, length)


def pages(start: int, length: int) -> set[int]:
    return set(range(start // mmap.PAGESIZE, -(-(start + length) // mmap.PAGESIZE)))


@given(rows=st.lists(st.lists(st.integers(0, N_ROWS - 1), min_size=2, max_size=2), max_size=6))
def test_the_pages_of_the_rows_are_read_ahead_and_no_others(mapped, rows):
    rows = np.array(rows, dtype=np.int64).reshape(-1, 2)
    array = mapped[:]
    array._mmap = watched = Watched(mapped._mmap)
    read_ahead(array, rows)
    begin_of_map = np.frombuffer(mapped._mmap, np.uint8).ctypes.data
    starts = [mapped[row].ctypes.data - begin_of_map for row in rows.flat]
    assert watched.pages == set().union(*(pages(start, mapped[0].nbytes) for start in starts))


def test_a_hint_that_is_refused_is_no_error(mapped):
    class Refusing:
        def madvise(self, *_: int) -> None:
            raise OSError("not here")

    array = mapped[:]
    array._mmap = Refusing()
    read_ahead(array, np.array([1]))


def test_arrays_in_memory_need_no_reading_ahead():
    read_ahead(np.zeros((3, 2)), np.array([0, 2]))
