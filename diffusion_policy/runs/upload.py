"""The metrics of a sweep on wandb, for those who ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any


class WandbUpload:
    """Logs the metrics of one sweep to a wandb run of its own; a context manager.

    Args:
        sweep: its directory, whose name becomes the run's.
        folder: where wandb keeps its files.
        mode: offline, or online for who is logged in.
        settings: of the sweep's runs, for wandb's config.
    """

    def __init__(
        self, sweep: Path, folder: Path, project: str, mode: str, settings: Mapping[str, Any]
    ) -> None:
        self._arguments = {
            "project": project,
            "name": sweep.resolve().name,
            "dir": folder,
            "mode": mode,
            "config": dict(settings),
            "job_type": "multirun_metrics",
        }

    def __enter__(self) -> WandbUpload:
        import wandb

        # Several sweeps in one process are several runs side by side.
        self._run = wandb.init(**self._arguments, reinit="create_new")
        self._n_logged = 0
        return self

    def log(self, history: Sequence[Mapping[str, float | int]]) -> None:
        """Log those records that come after the ones logged before."""
        for record in history[self._n_logged :]:
            self._run.log(dict(record), step=int(record["global_step"]))
        self._n_logged = max(self._n_logged, len(history))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run.finish(exit_code=0 if kind is None else 1)
