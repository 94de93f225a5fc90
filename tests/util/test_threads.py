from __future__ import annotations

import multiprocessing
import threading

import pytest

from diffusion_policy.util import threads
from diffusion_policy.util.threads import run_in_threads


@pytest.fixture(autouse=True)
def three_cores(monkeypatch):
    monkeypatch.setattr(threads, "usable_cores", lambda: 3)


def test_work_is_done_side_by_side():
    meeting = threading.Barrier(3, timeout=10)
    run_in_threads(lambda _: meeting.wait(), range(3))


def test_the_first_error_is_raised():
    def work(item: int) -> None:
        if item == 2:
            raise ValueError("two")

    with pytest.raises(ValueError, match="two"):
        run_in_threads(work, range(5))


def _in_child() -> None:
    meeting = threading.Barrier(3, timeout=10)
    run_in_threads(lambda _: meeting.wait(), range(3))


def test_a_forked_process_has_threads_of_its_own():
    run_in_threads(str, range(3))  # the parent's
    child = multiprocessing.get_context("fork").Process(target=_in_child)
    child.start()
    child.join(20)
    assert child.exitcode == 0
