"""Average the runs of sweeps over seeds, once or for as long as they go on."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from diffusion_policy.runs.metrics import METRICS, Evaluations, aggregate, history, metric_name
from diffusion_policy.runs.plots import score_curves
from diffusion_policy.runs.run import METRICS_FOLDER, Run, State
from diffusion_policy.runs.settings import tells_apart
from diffusion_policy.runs.sweep import (
    Sweep,
    counted,
    remarks,
    require_one_experiment,
    require_scores,
)
from diffusion_policy.util.html_page import png
from diffusion_policy.util.json_text import json_text
from diffusion_policy.util.output_dir import OutputLock, write_atomically
from diffusion_policy.util.tables import aligned_table
from diffusion_policy.workspace.loggers import open_wandb

Metrics = Mapping[str, float | int]
GRACE_S = 60.0
"""Seconds to wait for the next run of a sweep whose runs start one after the other."""


class SweepReport:
    """Writes the metrics of a sweep to its folder ``metrics/`` whenever they have changed.

    A context manager. From the first report on it holds the folder for this process.

    Args:
        sweep: the sweep.
        wandb: project and mode (offline, online), to log the metrics to wandb as well.
    """

    def __init__(self, sweep: Sweep, wandb: tuple[str, str] | None = None) -> None:
        self._sweep = sweep
        self._folder = sweep.directory / METRICS_FOLDER
        self._wandb = wandb
        self._wandb_run: Any = None
        self._n_uploaded = 0
        self._reported: tuple[Metrics, list[int]] | None = None
        self._remarks: list[str] = []
        self._stack = ExitStack()

    def __enter__(self) -> SweepReport:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def update(self, waiting: bool) -> list[Run]:
        """Read what is new; write and print the metrics if they have changed.

        Args:
            waiting: runs and scores that are missing may still come.

        Raises:
            UserError: the runs are no experiment over seeds; nothing can be reported and
                ``waiting`` is False; another process holds the folder, or it cannot be written.
        """
        runs, keys = self._sweep.look(may_be_empty=waiting), self._sweep.keys
        if not waiting:
            require_scores(runs, keys)
        require_one_experiment(runs)
        self._print_remarks([line for key in keys for line in remarks(runs, key)])
        scores = {key: found for key in keys if (found := counted(runs, key))}
        metrics = {k: v for key, found in scores.items() for k, v in aggregate(found, key).items()}
        reported = metrics, [len(run) for found in scores.values() for run in found]
        if metrics and reported != self._reported:
            if self._reported is None:
                self._open(runs[0])
            self._write(metrics, scores)
            print(f"{self._sweep.directory}: {len(runs)} run{'s' if len(runs) > 1 else ''}")
            print(metrics_text(metrics, list(scores)), flush=True)
            self._reported = reported
        return runs

    def _print_remarks(self, lines: list[str]) -> None:
        for line in lines:
            if line not in self._remarks:
                print(f"{self._sweep.directory}: {line}", file=sys.stderr)
        self._remarks = lines

    def _open(self, run: Run) -> None:
        """Take the folder and start wandb; not before the first report, so that a mistyped
        directory gets no folder."""
        self._stack.enter_context(OutputLock(self._folder))
        if self._wandb is not None:
            project, mode = self._wandb
            settings = {key: value for key, value in run.settings.items() if tells_apart(key)}
            self._wandb_run = open_wandb(
                self._folder,
                settings,
                project=project,
                mode=mode,
                name=self._sweep.directory.resolve().name,
                job_type="multirun_metrics",
                reinit="create_new",  # several sweeps in one process are several wandb runs
            )
            self._stack.push(lambda kind, *_: self._wandb_run.finish(exit_code=int(bool(kind))))

    def _write(self, metrics: Metrics, scores: Mapping[str, Sequence[Evaluations]]) -> None:
        records = history(scores)
        lines = "".join(map(json_text, records))
        write_atomically(self._folder / "logs.json.txt", lines.encode())
        text = json_text(metrics, indent=1)
        write_atomically(self._folder / "metrics.json", text.encode())
        write_atomically(self._folder / "curves.png", png(score_curves(scores)))
        if self._wandb_run is not None:
            for record in records[self._n_uploaded :]:
                self._wandb_run.log(record, step=int(record["global_step"]))
            self._n_uploaded = max(self._n_uploaded, len(records))


def metrics_text(metrics: Metrics, keys: Sequence[str]) -> str:
    """The metrics as a table of text, one column per score."""
    rows = [["", *keys]]
    for metric in METRICS:
        values = [metrics.get(metric_name(metric, key)) for key in keys]
        rows.append([metric, *("" if value is None else f"{value:.4f}" for value in values)])
    counts = [metrics[metric_name("metric_global_step", key)] + 1 for key in keys]
    rows.append(["evaluations of each run", *map(str, counts)])
    return aligned_table(rows)


def aggregate_sweeps(
    directories: Sequence[Path],
    keys: Sequence[str],
    *,
    exclude: Sequence[str] = (),
    watch_s: float | None = None,
    wandb: tuple[str, str] | None = None,
) -> None:
    """Write and print the metrics of each sweep, see :class:`SweepReport`.

    Args:
        watch_s: look again every ``watch_s`` seconds, until every run has been finished for
            :data:`GRACE_S`. None looks once.

    Raises:
        UserError: see :class:`SweepReport` and :class:`Sweep`.
    """
    with ExitStack() as stack:
        reports = [
            stack.enter_context(SweepReport(Sweep(directory, keys, exclude), wandb))
            for directory in directories
        ]
        finished_at: float | None = None
        while True:
            runs = [run for report in reports for run in report.update(watch_s is not None)]
            if watch_s is None:
                return
            if not runs or any(run.state is not State.FINISHED for run in runs):
                finished_at = None
            elif finished_at is None:
                finished_at = time.monotonic()
            elif time.monotonic() - finished_at >= GRACE_S:
                return
            time.sleep(watch_s)
