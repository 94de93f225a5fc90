"""The runs of a sweep over seeds, read again and again while they go on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffusion_policy.runs.metrics import Evaluations
from diffusion_policy.runs.run import Run, State, find_runs
from diffusion_policy.runs.settings import (
    differences,
    experiments,
    require_distinct_seeds,
    tells_apart,
)
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_logger import read_log


class Sweep:
    """A directory of runs and the scores to read; :meth:`look` reads what is new.

    Args:
        directory: directory of the sweep, or of a single run.
        keys: scores, as the logs name them (test/mean_score).
        exclude: names of runs to leave out.
    """

    def __init__(self, directory: Path, keys: Sequence[str], exclude: Sequence[str] = ()) -> None:
        self.directory = directory
        self.keys = keys
        self.exclude = exclude
        self._known: dict[Path, Run] = {}

    def look(self, *, may_be_empty: bool = False) -> list[Run]:
        """Read all runs that exist by now and are not excluded.

        Args:
            may_be_empty: accept a directory without runs.

        Raises:
            UserError: the directory or an excluded run is missing, or there is no run.
        """
        found = find_runs([self.directory], self.keys, may_be_empty=may_be_empty)
        names = [run.name for run in found]
        for name in self.exclude:
            if found and name not in names:
                raise UserError(
                    f"--exclude {name}: no such run in {self.directory}; choose from "
                    f"{', '.join(names)}"
                )
        runs = [self._known.setdefault(run.directory, run) for run in found]
        runs = [run for run in runs if run.name not in self.exclude]
        for run in runs:
            run.refresh()
        return runs


def require_one_experiment(runs: Sequence[Run]) -> None:
    """Refuse to average runs that differ in more than their seeds, or not even in these.

    Raises:
        UserError: names the settings that differ, or the runs with the same seed.
    """
    if len(experiments(runs)) > 1:
        keys = ", ".join(filter(tells_apart, differences(runs)))
        raise UserError(
            f"runs in {runs[0].directory.parent} differ in {keys}, not only in their seeds, so "
            "a mean over all says nothing; --exclude some, or see each experiment with --table or "
            "python -m diffusion_policy.scripts.compare"
        )
    require_distinct_seeds([run for run in runs if run.has_begun])


def require_scores(runs: Sequence[Run], keys: Sequence[str]) -> None:
    """Refuse a score that no run has logged.

    Raises:
        UserError: names the score and those that are logged.
    """
    for key in keys:
        if not counted(runs, key):
            logged = {key for run in runs for record in read_log(run.log.path) for key in record}
            scores = sorted(key for key in logged if "/" in key and "/sim_" not in key)
            choices = ", ".join([*scores, *(logged & {"val_loss"})])
            remedy = f"choose with -k from {choices}"
            if not choices:
                remedy = "they have no evaluation yet: --watch them, or come back later"
            raise UserError(f"no run has logged {key}; {remedy}")


def remarks(runs: Sequence[Run], key: str) -> list[str]:
    """A line for each run that counts less than it should."""
    counts = [len(run.evaluations(key)) for run in runs]
    longest = max(counts, default=0)
    lines = []
    for run, n in zip(runs, counts, strict=True):
        if n == 0:
            lines.append(f"{run.name} ({run.state}) has no {key} and is left out")
        elif n < longest and run.state is not State.RUNNING:
            lines.append(
                f"{run.name} ({run.state}) has {n} of {longest} evaluations by {key}, so only {n} "
                f"of each run count; leave it out with --exclude {run.name}"
            )
    return lines


def counted(runs: Sequence[Run], key: str) -> list[Evaluations]:
    """The evaluations of the runs that have some."""
    return [found for run in runs if len(found := run.evaluations(key))]
