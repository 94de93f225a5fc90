"""Turn sweeps over seeds into their metrics, once or for as long as they go on."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from diffusion_policy.runs.metrics import METRICS, aggregate, history
from diffusion_policy.runs.metrics_folder import MetricsFolder
from diffusion_policy.runs.runs import Run, State
from diffusion_policy.runs.settings import tells_apart
from diffusion_policy.runs.sweep import (
    Progress,
    Sweep,
    counted,
    remarks,
    require_one_experiment,
    require_runs,
    require_scores,
)
from diffusion_policy.runs.upload import WandbUpload

GRACE_S = 60.0
"""Where runs start one after the other, none is running for a moment: no longer than this."""


class SweepReport:
    """Reports a sweep whenever it has moved on; a context manager.

    Args:
        sweep: the sweep.
        wandb: project and mode (offline, online) of an upload, if there shall be one.
    """

    def __init__(self, sweep: Sweep, wandb: tuple[str, str] | None = None) -> None:
        self._sweep = sweep
        self._wandb = wandb
        self._sinks: tuple[MetricsFolder, WandbUpload | None] | None = None
        self._reported: tuple[Mapping[str, float | int], list[int]] | None = None
        self._remarks: list[str] = []
        self._stack = ExitStack()

    def __enter__(self) -> SweepReport:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)

    def update(self, waiting: bool) -> list[Progress]:
        """Read what is new; write and print the metrics if they are.

        Args:
            waiting: runs and scores that are missing may still come.

        Raises:
            UserError: there is nothing to report, and no waiting.
        """
        runs, keys = self._sweep.look(), self._sweep.keys
        if not waiting:
            require_runs(runs, self._sweep.directory)
            require_scores(runs, keys)
        require_one_experiment(runs)
        self._tell([line for key in keys for line in remarks(runs, key)])
        scores = {key: found for key in keys if (found := counted(runs, key))}
        metrics = {k: v for key, found in scores.items() for k, v in aggregate(found, key).items()}
        reported = metrics, [len(run) for found in scores.values() for run in found]
        if metrics and reported != self._reported:
            self._sinks = self._sinks or self._open(runs[0].run)
            folder, upload = self._sinks
            records = history(scores)
            folder.write(metrics, records, scores)
            print(f"{self._sweep.directory}: {len(runs)} run{'s' if len(runs) > 1 else ''}")
            print(metrics_text(metrics, list(scores)), flush=True)
            if upload is not None:
                upload.log(records)
            self._reported = reported
        return runs

    def _tell(self, lines: list[str]) -> None:
        for line in lines:
            if line not in self._remarks:
                print(f"{self._sweep.directory}: {line}", file=sys.stderr)
        self._remarks = lines

    def _open(self, run: Run) -> tuple[MetricsFolder, WandbUpload | None]:
        """Where reports go: opened by the first one, or a mistyped directory would get them."""
        sweep = self._sweep.directory
        folder = self._stack.enter_context(MetricsFolder(sweep))
        if self._wandb is None:
            return folder, None
        settings = {key: value for key, value in run.settings.items() if tells_apart(key)}
        upload = WandbUpload(sweep, folder.path, *self._wandb, settings)
        return folder, self._stack.enter_context(upload)


def metrics_text(metrics: Mapping[str, float | int], keys: Sequence[str]) -> str:
    """The metrics as lines of text, a column a score."""
    rows = [("", *keys)]
    for metric in METRICS:
        values = [metrics.get(f"{metric}/{key.replace('/', '_')}") for key in keys]
        rows.append((metric, *("" if value is None else f"{value:.4f}" for value in values)))
    counts = (metrics[f"metric_global_step/{key.replace('/', '_')}"] + 1 for key in keys)
    rows.append(("evaluations of each run", *map(str, counts)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def aggregate_sweeps(
    directories: Sequence[Path],
    keys: Sequence[str],
    *,
    exclude: Sequence[str] = (),
    watch_s: float | None = None,
    wandb: tuple[str, str] | None = None,
) -> None:
    """Write and print the metrics of each sweep, see :class:`MetricsFolder`.

    Args:
        watch_s: look again after so many seconds, until every run has been finished for
            :data:`GRACE_S`; None looks once.

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
