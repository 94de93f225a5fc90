"""One pool of threads for work that releases Python's lock, such as decoding images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from diffusion_policy.util.cores import usable_cores

T = TypeVar("T")
_pool: ThreadPoolExecutor | None = None
_n_threads = 1


def n_threads() -> int:
    """Threads of this process: one per core, shared among the loader processes of a training."""
    from torch.utils.data import get_worker_info

    worker = get_worker_info()
    return max(1, usable_cores() // (worker.num_workers if worker else 1))


def run_in_threads(work: Callable[[T], object], items: Iterable[T]) -> None:
    """Call ``work`` with each item, several at once; the first error is raised here."""
    global _pool, _n_threads
    items = list(items)
    wanted = n_threads()
    if wanted == 1 or len(items) < 2:
        for item in items:
            work(item)
        return
    if _pool is None or _n_threads != wanted:
        _pool, _n_threads = ThreadPoolExecutor(wanted, "decode"), wanted
    futures = [_pool.submit(work, item) for item in items]
    try:
        for future in futures:
            future.result()
    finally:
        for future in futures:
            future.cancel()


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # the threads of the parent do not live in the child
    os.register_at_fork(after_in_child=_forget_pool)
