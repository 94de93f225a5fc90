"""What a sweep over seeds reached, in a few numbers for each score.

They are those of ``multirun_metrics.py`` of the public Diffusion Policy code, by name and value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter1d

K = 10
"""Evaluations that the smoothed metrics average."""


@dataclass(frozen=True)
class Evaluations:
    """The N evaluations of a run by one score; all arrays are (N,) float64.

    Attributes:
        steps: optimiser steps done before.
        values: the score.
        train_loss, val_loss: logged with it; NaN where there is none.
    """

    steps: np.ndarray
    values: np.ndarray
    train_loss: np.ndarray
    val_loss: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def first(self, n: int) -> Evaluations:
        """The first ``n`` of them."""
        return Evaluations(self.steps[:n], self.values[:n], self.train_loss[:n], self.val_loss[:n])


def evaluations(records: Sequence[Mapping[str, Any]], key: str) -> Evaluations:
    """The evaluations among ``records``: those with a finite ``key``.

    A score that is not finite (the log then has it as text) evaluates nothing. A loss that is not
    finite is no loss.
    """
    rows = [
        [number(record.get(name)) for name in ("global_step", key, "train_loss", "val_loss")]
        for record in records
    ]
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return Evaluations(*table[~np.isnan(table[:, :2]).any(axis=1)].T)


def number(value: Any) -> float:
    """``value`` as a number; NaN for all that is no finite number."""
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if is_number else math.nan


def _around_max(run: Evaluations) -> float:
    # Near the end the window moves back, so as to stay as wide.
    end = min(int(run.values.argmax()) + K // 2, len(run))
    return run.values[max(0, end - K) : end].mean()


def _max_window(run: Evaluations) -> float:
    return uniform_filter1d(run.values, size=K, mode="nearest").max()


def _where_smallest(loss: np.ndarray, values: np.ndarray, n: int) -> float:
    """Mean value at the ``n`` smallest losses; NaN when there are no losses."""
    order = np.argsort(loss, kind="stable")[: min(n, np.count_nonzero(~np.isnan(loss)))]
    return values[order].mean() if len(order) else math.nan


METRICS: Mapping[str, Callable[[Evaluations], float]] = {
    "max": lambda run: run.values.max(),
    "k_around_max": _around_max,
    "max_k_window": _max_window,
    "min_train_loss": lambda run: _where_smallest(run.train_loss, run.values, 1),
    "min_val_loss": lambda run: _where_smallest(run.val_loss, run.values, 1),
    "k_min_train_loss": lambda run: _where_smallest(run.train_loss, run.values, K),
    "k_min_val_loss": lambda run: _where_smallest(run.val_loss, run.values, K),
    "last": lambda run: run.values[-1],
}
"""Metrics of one run, by name:

- ``max``: the best value; ``last``: the last one;
- ``k_around_max``: mean of the K values around the best; ``max_k_window``: the best moving average
  of K, the ends repeated. A single lucky evaluation moves these less;
- ``min_train_loss``, ``min_val_loss``: the value where the loss was smallest, what choosing a
  checkpoint by its loss gives; ``k_min_...``: mean of those at the K smallest losses.
"""


def common_length(runs: Sequence[Evaluations]) -> int:
    """Evaluations that all ``runs`` have: a mean over runs compares like with like."""
    return min(map(len, runs), default=0)


def aggregate(runs: Sequence[Evaluations], key: str) -> dict[str, float | int]:
    """``<metric>/<key>``, a / of the key written _: means over runs cut to their common length.

    A metric that one of the runs lacks (no loss was logged) is left out. ``metric_global_step`` is
    the reference's name for the index, from 0, of the last evaluation that was counted; it is no
    optimiser step. Nothing when there is no common evaluation.
    """
    n = common_length(runs)
    if n == 0:
        return {}
    name = key.replace("/", "_")
    found: dict[str, float | int] = {}
    for metric, of_run in METRICS.items():
        value = float(np.mean([of_run(run.first(n)) for run in runs]))
        if not math.isnan(value):
            found[f"{metric}/{name}"] = value
    return {**found, f"metric_global_step/{name}": n - 1}


def history(scores: Mapping[str, Sequence[Evaluations]]) -> list[dict[str, float | int]]:
    """How the metrics grew: a record an evaluation that all runs have, as if it were the last.

    Args:
        scores: the runs by key.

    Returns:
        Records of ``global_step`` (of the first run), the mean over runs of each key, and
        :func:`aggregate` so far.
    """
    records = []
    for n in range(1, max(map(common_length, scores.values()), default=0) + 1):
        reached = {key: runs for key, runs in scores.items() if common_length(runs) >= n}
        steps = next(iter(reached.values()))[0].steps
        record: dict[str, float | int] = {"global_step": int(steps[n - 1])}
        for key, runs in reached.items():
            record[key] = float(np.mean([run.values[n - 1] for run in runs]))
            record |= aggregate([run.first(n) for run in runs], key)
        records.append(record)
    return records
