"""Methods against tasks, as a markdown table."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from diffusion_policy.runs import settings
from diffusion_policy.runs.metrics import METRICS, Evaluations, common_length
from diffusion_policy.runs.run import Run
from diffusion_policy.runs.sweep import Sweep, counted, remarks, require_scores
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.statistics import mean_and_half_width
from diffusion_policy.util.tables import markdown_table


def tabulate_sweeps(
    directories: Sequence[Path],
    keys: Sequence[str],
    metrics: Sequence[str],
    exclude: Sequence[str] = (),
) -> None:
    """Print a table of methods and tasks for each score, see :func:`method_table`.

    Raises:
        UserError: a metric is unknown; see also :func:`method_table` and :class:`Sweep`.
    """
    for metric in metrics:
        if metric not in METRICS:
            raise UserError(f"--metrics {metric} is unknown; choose from {', '.join(METRICS)}")
    runs = [run for directory in directories for run in Sweep(directory, keys, exclude).look()]
    require_scores(runs, keys)
    experiments = settings.experiments(runs)
    for key in keys:
        for experiment in experiments:
            for line in remarks(experiment, key):
                print(f"{experiment[0].directory.parent}: {line}", file=sys.stderr)
        print(method_table(experiments, key, metrics))


def method_table(experiments: Sequence[Sequence[Run]], key: str, metrics: Sequence[str]) -> str:
    """A row for each method, a column for each task; a cell is a mean over seeds.

    A cell reads ``max / last (n seeds)``: the mean of each and, with two or more seeds, half the
    width of its 95 % interval. Experiments with the same method and task get a row each, with the
    settings that differ, see :func:`~diffusion_policy.runs.settings.labels`.

    Args:
        experiments: runs that differ in their seeds only. An experiment without an evaluation is
            left out.
        key: the score.
        metrics: names from :data:`~diffusion_policy.runs.metrics.METRICS`.

    Raises:
        UserError: a run has no config, or two runs of one experiment have the same seed.
    """
    scored = [experiment for experiment in experiments if counted(experiment, key)]
    names = [_method_and_task(experiment[0]) for experiment in scored]
    cells: dict[str, dict[str, str]] = {}
    for experiment, (method, task), label in zip(
        scored, names, settings.labels(scored, names), strict=True
    ):
        settings.require_distinct_seeds([run for run in experiment if run.has_begun])
        row = f"{method}, {label}" if label else method
        cells.setdefault(row, {})[task] = _cell(counted(experiment, key), metrics)
    tasks = list(dict.fromkeys(task for _, task in names))
    return markdown_table(
        [f"{key}: {' / '.join(metrics)}", *tasks],
        [[row, *(of_row.get(task, "") for task in tasks)] for row, of_row in cells.items()],
        right=range(1, len(tasks) + 1),
    )


def _method_and_task(run: Run) -> tuple[str, str]:
    """Return ("dot", "pusht_image") for the config train_dot_pusht_image."""
    try:
        name, task = run.settings["name"], run.settings["task.name"]
    except KeyError as missing:
        raise UserError(
            f"{run.directory}/.hydra/config.yaml has no {missing.args[0]}, so the run has no place "
            "in the table; leave it out"
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
        return "none"  # the run logged no loss
    return f"{mean:.3f}" + ("" if math.isnan(half_width) else f" ± {half_width:.3f}")
