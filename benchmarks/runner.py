"""Run a case: check, warm up, repeat and summarise."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from benchmarks.case import Case, Options
from benchmarks.machine import Pace, measure_pace

MIN_REPEATS = 3


@dataclass(frozen=True)
class Result:
    """The figures of a case.

    Attributes:
        figures: one per repetition.
        pace: the machine's pace, the slower of before and after the case.
    """

    case: Case
    figures: tuple[float, ...]
    pace: Pace

    @property
    def median(self) -> float:
        return float(np.median(self.figures))

    @property
    def spread(self) -> tuple[float, float]:
        """Return the quartiles."""
        low, high = np.quantile(self.figures, [0.25, 0.75])
        return float(low), float(high)


def run_case(case: Case, options: Options, repeats: int, seconds: float) -> Result:
    """Measure one case.

    Args:
        repeats: number of repetitions; the case may limit it further.
        seconds: start no repetition after this time, once three are done.

    Raises:
        AssertionError: the result differs from the slow and simple computation.
    """
    repeats = min(repeats, case.max_repeats or repeats)
    with case.prepare(options) as work:
        pace = measure_pace(options)
        if repeats > 1:
            work.check(work.run())  # also warms up
        figures: list[float] = []
        began = time.perf_counter()
        while len(figures) < repeats:
            start = time.perf_counter()
            result = work.run()
            took = time.perf_counter() - start
            figures.append(case.figure(took, work.amount, result))
            if len(figures) >= MIN_REPEATS and time.perf_counter() - began > seconds:
                break
        pace = pace.slower(measure_pace(options))
        if repeats == 1:
            work.check(result)
    return Result(case, tuple(figures), pace)
