"""Metrics of a sweep over seeds: a few numbers for each score.

Names and values are those of ``multirun_metrics.py`` of the public Diffusion Policy code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d

K = 10
"""Number of evaluations that the smoothed metrics average."""
LOSSES = ("train_loss", "val_loss")


@dataclass(frozen=True)
class Evaluations:
    """The N evaluations of a run by one score; all arrays are (N,) float64.

    Attributes:
        steps: optimiser step of the evaluation.
        values: the score.
        train_loss, val_loss: the losses in the same record of the log; NaN if there is none.
    """

    steps: np.ndarray
    values: np.ndarray
    train_loss: np.ndarray
    val_loss: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def first(self, n: int) -> Evaluations:
        """The first ``n`` evaluations."""
        return Evaluations(self.steps[:n], self.values[:n], self.train_loss[:n], self.val_loss[:n])


def evaluations(log: Mapping[str, np.ndarray], key: str) -> Evaluations:
    """Select the evaluations by the score ``key``.

    Args:
        log: columns ``global_step``, ``key`` and :data:`LOSSES` of a log, (N,) each, with NaN where
            a record has no finite value. A record without a finite score is no evaluation.
    """
    table = np.stack([log[name] for name in ("global_step", key, *LOSSES)])
    return Evaluations(*table[:, ~np.isnan(table[:2]).any(axis=0)])


def _around_max(run: Evaluations) -> float:
    # Near the end the window moves back, so that it keeps its width.
    end = min(int(run.values.argmax()) + K // 2, len(run))
    return run.values[max(0, end - K) : end].mean()


def _max_window(run: Evaluations) -> float:
    return uniform_filter1d(run.values, size=K, mode="nearest").max()


def _where_smallest(loss: np.ndarray, values: np.ndarray, n: int) -> float:
    """Mean value at the ``n`` smallest losses; NaN if there are no losses."""
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

- ``max``: the best value; ``last``: the last value;
- ``k_around_max``: mean of the K values around the best; ``max_k_window``: the best moving average
  of K values, with the first and last value repeated. One lucky evaluation changes these less;
- ``min_train_loss``, ``min_val_loss``: the value where the loss was smallest, which is what
  choosing a checkpoint by its loss gives; ``k_min_...``: mean value at the K smallest losses.
"""


def common_length(runs: Sequence[Evaluations]) -> int:
    """Number of evaluations that every run has. Means over runs use only these."""
    return min(map(len, runs), default=0)


def aggregate(runs: Sequence[Evaluations], key: str) -> dict[str, float | int]:
    """Average each metric over ``runs``, all cut to their common length.

    Returns:
        ``<metric>/<key>`` with each / of the key written as _. A metric that one of the runs lacks
        (it logged no loss) is left out. ``metric_global_step/<key>`` is the index, from 0, of the
        last evaluation that counts; the name is the reference's, it is no optimiser step. Empty if
        there is no common evaluation.
    """
    n = common_length(runs)
    if n == 0:
        return {}
    found: dict[str, float | int] = {}
    for metric, of_run in METRICS.items():
        value = float(np.mean([of_run(run.first(n)) for run in runs]))
        if not math.isnan(value):
            found[metric_name(metric, key)] = value
    return {**found, metric_name("metric_global_step", key): n - 1}


def metric_name(metric: str, key: str) -> str:
    """Name of a metric of the score ``key`` in metrics.json."""
    return f"{metric}/{key.replace('/', '_')}"


def history(scores: Mapping[str, Sequence[Evaluations]]) -> list[dict[str, float | int]]:
    """Compute the metrics after each evaluation that all runs have, as if it were the last one.

    Args:
        scores: the runs by score.

    Returns:
        Records of ``global_step`` (of the first run), the mean over runs of each score, and
        :func:`aggregate` up to there.
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
