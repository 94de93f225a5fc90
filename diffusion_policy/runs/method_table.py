"""Methods against tasks, as a markdown table."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from diffusion_policy.runs.metrics import METRICS, Evaluations, common_length
from diffusion_policy.runs.runs import Run
from diffusion_policy.runs.settings import labels, require_other_seeds, same_but_seed
from diffusion_policy.runs.sweep import (
    Progress,
    Sweep,
    counted,
    remarks,
    require_runs,
    require_scores,
)
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.statistics import mean_and_half_width


def tabulate_sweeps(
    directories: Sequence[Path],
    keys: Sequence[str],
    metrics: Sequence[str],
    exclude: Sequence[str] = (),
) -> None:
    """Print a table of methods and tasks for each score, see :func:`method_table`.

    Raises:
        UserError: see :func:`method_table` and :class:`Sweep`; or a metric is unknown.
    """
    for metric in metrics:
        if metric not in METRICS:
            raise UserError(f"--metrics {metric} is unknown; choose from {', '.join(METRICS)}")
    runs = []
    for directory in directories:
        found = Sweep(directory, keys, exclude).look()
        require_runs(found, directory)
        runs += found
    require_scores(runs, keys)
    experiments = same_but_seed(runs, lambda progress: progress.run.settings)
    for key in keys:
        for experiment in experiments:
            for line in remarks(experiment, key):
                print(f"{experiment[0].run.directory.parent}: {line}", file=sys.stderr)
        print(method_table(experiments, key, metrics))


def method_table(
    experiments: Sequence[Sequence[Progress]], key: str, metrics: Sequence[str]
) -> str:
    """A row for each method, a column for each task; a cell is a mean over seeds.

    A cell reads ``max / last (n seeds)``, each the mean and, from two seeds on, half the width of
    its 95 % interval. Experiments with the same method and task get a row each, told apart
    by settings, see :func:`~diffusion_policy.runs.settings.labels`.

    Args:
        experiments: runs that differ in nothing but their seeds; those without an evaluation are
            left out.
        key: the score.
        metrics: names from :data:`~diffusion_policy.runs.metrics.METRICS`.

    Raises:
        UserError: a run has no config to tell its method and task, or two runs are one experiment
            with one seed, so that they are no independent samples.
    """
    scored = [experiment for experiment in experiments if counted(experiment, key)]
    groups = [[progress.run for progress in experiment] for experiment in scored]
    names = [_method_and_task(group[0]) for group in groups]
    for group in groups:
        require_other_seeds((run.seed, run.directory) for run in group)
    cells: dict[str, dict[str, str]] = {}
    for experiment, (method, task), label in zip(scored, names, labels(groups, names), strict=True):
        row = f"{method}, {label}" if label else method
        cells.setdefault(row, {})[task] = _cell(counted(experiment, key), metrics)
    tasks = list(dict.fromkeys(task for _, task in names))
    lines = [
        [f"{key}: {' / '.join(metrics)}", *tasks],
        ["---", *["---:"] * len(tasks)],
        *([row, *(of_row.get(task, "") for task in tasks)] for row, of_row in cells.items()),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _method_and_task(run: Run) -> tuple[str, str]:
    """("dot", "pusht_image") for the run train_dot_pusht_image: its name up to the task's."""
    try:
        name, task = run.settings["name"], run.settings["task.name"]
    except KeyError as missing:
        raise UserError(
            f"{run.directory}/.hydra/config.yaml has no {missing.args[0]}, so that the run has no "
            "place in the table; leave it out"
        ) from None
    family = task.partition("_")[0]
    return name.removeprefix("train_").partition(f"_{family}")[0], task


def _cell(runs: Sequence[Evaluations], metrics: Sequence[str]) -> str:
    n = common_length(runs)
    means = [_mean([METRICS[metric](run.first(n)) for run in runs]) for metric in metrics]
    return f"{' / '.join(means)} ({len(runs)} seed{'s' if len(runs) > 1 else ''})"


def _mean(values: Sequence[float]) -> str:
    mean, half_width = mean_and_half_width(values)
    if math.isnan(mean):
        return "none"  # no loss was logged to choose by
    return f"{mean:.3f}" + ("" if math.isnan(half_width) else f" ± {half_width:.3f}")
