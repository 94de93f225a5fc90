"""What multirun_metrics.py leaves in a sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from diffusion_policy.common.html_page import png
from diffusion_policy.common.json_logger import JsonLogger, read_log
from diffusion_policy.common.output_dir import OutputLock, write_atomically
from diffusion_policy.multirun.metrics import Evaluations
from diffusion_policy.multirun.plots import score_curves
from diffusion_policy.multirun.runs import METRICS_FOLDER


class MetricsFolder:
    """Keeps ``metrics/`` of a sweep up to date; a context manager that holds it alone.

    Raises:
        UserError: on entry, when another process holds it or it cannot be written.
    """

    def __init__(self, sweep: Path) -> None:
        self.path = sweep / METRICS_FOLDER
        self._lock = OutputLock(self.path)

    def __enter__(self) -> MetricsFolder:
        self._lock.__enter__()
        log = self.path / "logs.json.txt"
        history = read_log(log)
        self._logger = JsonLogger(log, keep=len(history))
        self._metrics = history[-1] if history else {}
        return self

    def write(
        self, metrics: Mapping[str, float | int], runs: Mapping[str, Sequence[Evaluations]]
    ) -> None:
        """Write ``metrics`` and the curves of ``runs``, by score.

        ``logs.json.txt`` grows by a record when the metrics are others than before, also in an
        earlier process.
        """
        if metrics != self._metrics:
            self._logger.log(dict(metrics))
            self._metrics = dict(metrics)
        text = json.dumps(metrics, indent=1) + "\n"
        write_atomically(self.path / "metrics.json", text.encode())
        write_atomically(self.path / "curves.png", png(score_curves(runs)))

    def __exit__(self, *error: object) -> None:
        self._logger.__exit__()
        self._lock.__exit__()
