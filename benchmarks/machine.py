"""Describe the machine and measure its current speed."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from benchmarks.case import Options, Work, case, each
from diffusion_policy.util.cores import usable_cores
from diffusion_policy.util.provenance import cpu_name

_SIDE = 2048  # rows and columns of the matrices


@dataclass(frozen=True)
class Pace:
    """The machine's speed next to a case; it separates a slow machine from slow code.

    Attributes:
        loop: millions of iterations per second of a minimal Python loop.
        product: 10^9 floating-point operations per second of a float32 matrix product.
    """

    loop: float
    product: float

    def slower(self, other: Pace) -> Pace:
        """Return the lower value of each attribute."""
        return Pace(min(self.loop, other.loop), min(self.product, other.product))


def measure_pace(options: Options) -> Pace:
    """Measure the pace: the best of a few short runs."""
    turns, side = options.size(1_000_000, 1000), options.size(_SIDE, 64)
    a, b = torch.rand(side, side), torch.rand(side, side)
    loops = [_seconds(lambda: _count(turns)) for _ in range(3)]
    products = [_seconds(lambda: a @ b) for _ in range(3)]
    return Pace(turns / min(loops) / 1e6, 2 * side**3 / min(products) / 1e9)


def describe() -> dict[str, str | int]:
    """Return facts about the machine, its software and its load."""
    return {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load": f"{os.getloadavg()[0]:.1f} processes at the start",
    }


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _count(turns: int) -> int:
    total = 0
    for i in range(turns):
        total += i
    return total


@case("machine.loop", "pure Python loop", "turns/s")
def loop(options: Options) -> Iterator[Work]:
    turns = options.size(5_000_000, 1000)

    def check(total: int) -> None:
        assert total == turns * (turns - 1) // 2

    yield Work(lambda: _count(turns), check, turns)


@each(
    case(
        "machine.product_float32",
        "matrix product, float32, 2048^3",
        "GFLOP/s",
        reference=190,
        arguments={"dtype": torch.float32},
    ),
    case(
        "machine.product_bfloat16",
        "matrix product, bfloat16, 2048^3",
        "GFLOP/s",
        reference=425,
        arguments={"dtype": torch.bfloat16},
    ),
)
def product(options: Options, dtype: torch.dtype) -> Iterator[Work]:
    side = options.size(_SIDE, 64)
    a, b = (torch.rand(side, side).to(dtype) for _ in range(2))

    def check(c: torch.Tensor) -> None:
        row = torch.stack([(a[0].double() * column).sum() for column in b.double().T])
        torch.testing.assert_close(c[0].double(), row, rtol=0.01, atol=0)

    yield Work(lambda: a @ b, check, 2 * side**3 / 1e9)
