"""What the log of a run tells its reader: where it stands, and its curves."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion_policy.runs.metrics import number
from diffusion_policy.runs.runs import Run, State
from diffusion_policy.util.json_logger import parse_line
from diffusion_policy.util.output_dir import is_held

LOSS, VALIDATION = "train_loss", "val_loss"
SUCCESS, SCORE = "test/success_rate", "test/mean_score"
CURVES = (LOSS, VALIDATION, SUCCESS, SCORE)


@dataclass(frozen=True)
class History:
    """A run and what its log holds.

    Attributes:
        run: the run.
        state: whether it goes on.
        n_steps: optimiser steps that it logged.
        curves: (N, 2) float64 of each of :data:`CURVES`: optimiser steps done before, value.
            Values that are not finite are left out.
        rollout: the last record with rollouts on test seeds; empty before there is one.
    """

    run: Run
    state: State
    n_steps: int
    curves: Mapping[str, np.ndarray]
    rollout: Mapping[str, Any]

    @classmethod
    def read(cls, run: Run) -> History:
        """Read the log of ``run``, which may go on."""
        held = is_held(run.directory)  # before reading: a log is whole once nobody holds it
        points = {key: array("d") for key in CURVES}  # a log can have millions of lines
        last, rollout = None, {}
        if run.log.is_file():
            with run.log.open("rb") as lines:
                for record in filter(None, map(parse_line, lines)):
                    last = record
                    for key in points.keys() & record.keys():
                        points[key].extend((record["global_step"], number(record[key])))
                    if SCORE in record:
                        rollout = record
        curves = {key: np.array(flat).reshape(-1, 2) for key, flat in points.items()}
        return cls(
            run,
            run.state(held, last),
            0 if last is None else last["global_step"] + 1,
            {key: curve[np.isfinite(curve[:, 1])] for key, curve in curves.items()},
            rollout,
        )

    @property
    def success_rate(self) -> float:
        """Of the last rollout; NaN without one."""
        return number(self.rollout.get(SUCCESS))

    @property
    def score(self) -> float:
        """Mean max reward of the last rollout; NaN without one."""
        return number(self.rollout.get(SCORE))

    @property
    def best_score(self) -> float:
        """Mean max reward of the best rollout; NaN without one."""
        return float(self.curves[SCORE][:, 1].max(initial=-np.inf)) if self.rollout else np.nan
