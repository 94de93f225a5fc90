"""What multirun_metrics.py leaves in a sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from diffusion_policy.runs.metrics import Evaluations
from diffusion_policy.runs.plots import score_curves
from diffusion_policy.runs.runs import METRICS_FOLDER
from diffusion_policy.util.html_page import png
from diffusion_policy.util.output_dir import OutputLock, write_atomically

Records = Sequence[Mapping[str, float | int]]


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
        return self

    def write(
        self,
        metrics: Mapping[str, float | int],
        history: Records,
        scores: Mapping[str, Sequence[Evaluations]],
    ) -> None:
        """Write ``metrics``, how they came to be, and the curves of the runs, by score."""
        lines = "".join(json.dumps(record) + "\n" for record in history)
        write_atomically(self.path / "logs.json.txt", lines.encode())
        text = json.dumps(metrics, indent=1) + "\n"
        write_atomically(self.path / "metrics.json", text.encode())
        write_atomically(self.path / "curves.png", png(score_curves(scores)))

    def __exit__(self, *error: object) -> None:
        self._lock.__exit__()
