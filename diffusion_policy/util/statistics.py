"""Confidence intervals of what an evaluation reports.

scipy is imported late: the import takes a second, which only those who need an interval should pay.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a success rate, ``successes`` of ``n`` independent trials.

    Unlike the textbook interval it stays in [0, 1] and has a width at 0 and at n successes
    (Wilson 1927, "Probable inference, the law of succession, and statistical inference").

    Raises:
        ValueError: no trials, or not 0 <= successes <= n.
    """
    from scipy.stats import binomtest

    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes of {n} trials have no success rate")
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    seed: int = 0,
    confidence: float = 0.95,
    n_resamples: int = 2000,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``values`` (n,) (Efron 1979).

    Raises:
        ValueError: there are no values.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        raise ValueError("no values have no mean")
    # scipy.stats.bootstrap draws the same resamples, but takes no single value, and its last digit
    # differs from the intervals on record.
    rows = np.random.default_rng(seed).integers(values.size, size=(n_resamples, values.size))
    tail = (1 - confidence) / 2
    low, high = np.quantile(values[rows].mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)


def mean_by_key(
    values: Sequence[float] | Sequence[np.ndarray], keys: Sequence[Hashable]
) -> list[np.ndarray]:
    """Means of the ``values`` that share a key, in the order of the keys.

    Repeats of one seed are no independent samples; their mean is one.

    Args:
        values: n numbers, or arrays of one shape.
        keys: n of them.
    """
    groups: dict[Hashable, list[Any]] = {}
    for value, key in zip(values, keys, strict=True):
        groups.setdefault(key, []).append(value)
    return [np.mean(group, axis=0) for group in groups.values()]


def mean_and_half_width(
    values: Sequence[float] | Sequence[np.ndarray] | np.ndarray, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of independent ``values`` (n, ...) over n, and half the width of its interval.

    Student's t with n - 1 degrees of freedom (Student 1908, "The probable error of a mean"). A
    single value has no interval: its half width is NaN.

    Returns:
        (...) each.

    Raises:
        ValueError: there are no values.
    """
    from scipy.special import stdtrit  # scipy.stats.t.ppf, without scipy.stats

    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    if n == 0:
        raise ValueError("no values have no mean")
    mean = values.mean(axis=0)
    if n == 1:
        return mean, np.full_like(mean, np.nan)
    quantile = stdtrit(n - 1, 0.5 + confidence / 2)
    return mean, quantile * values.std(axis=0, ddof=1) / math.sqrt(n)
