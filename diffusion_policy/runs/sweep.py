"""The runs of a sweep over seeds, read again and again while they go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusion_policy.runs.log_tail import LogTail
from diffusion_policy.runs.metrics import Evaluations, evaluations
from diffusion_policy.runs.runs import Run, State, find_runs
from diffusion_policy.runs.settings import differences, same_but_seed, tells_apart
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_logger import read_log
from diffusion_policy.util.output_dir import is_held


@dataclass(frozen=True)
class Progress:
    """A run at one moment; ``evaluations`` are by score."""

    run: Run
    state: State
    evaluations: Mapping[str, Evaluations]


class Sweep:
    """A directory of runs and the scores asked for; :meth:`look` reads what is new.

    Args:
        directory: of the sweep, or of a single run.
        keys: scores, as the logs name them (test/mean_score).
        exclude: names of runs to leave out.
    """

    def __init__(self, directory: Path, keys: Sequence[str], exclude: Sequence[str] = ()) -> None:
        self.directory = directory
        self.keys = keys
        self.exclude = exclude
        self._tails: dict[Path, LogTail] = {}

    def look(self) -> list[Progress]:
        """All runs that are there by now and not excluded.

        Raises:
            UserError: there is no such directory, or an excluded run is not in it.
        """
        runs = find_runs(self.directory)
        names = [run.name for run in runs]
        for name in self.exclude:
            if runs and name not in names:
                raise UserError(
                    f"--exclude {name}: no such run in {self.directory}; there are "
                    f"{', '.join(names)}"
                )
        return [self._progress(run) for run in runs if run.name not in self.exclude]

    def _progress(self, run: Run) -> Progress:
        held = is_held(run.directory)  # before reading: a log is whole once nobody holds it
        tail = self._tails.setdefault(run.log, LogTail(run.log, self.keys))
        tail.refresh()
        scores = {key: evaluations(tail.records, key) for key in self.keys}
        return Progress(run, run.state(held, tail.last), scores)


def require_runs(runs: Sequence[Progress], directory: Path) -> None:
    """Refuse a directory without runs.

    Raises:
        UserError: names it.
    """
    if not runs:
        raise UserError(
            f"{directory} holds no run of train.py (a folder with logs.json.txt); give the folder "
            "that holds train_0, train_1, ..."
        )


def require_one_experiment(sweep: Sequence[Progress]) -> None:
    """Refuse to average runs that differ in more than their seeds.

    Raises:
        UserError: names the settings.
    """
    if len(same_but_seed(sweep, lambda progress: progress.run.settings)) > 1:
        runs = [progress.run for progress in sweep]
        keys = ", ".join(filter(tells_apart, differences(runs)))
        raise UserError(
            f"runs in {runs[0].directory.parent} differ in {keys}, not only in their seeds, so "
            "a mean over all says nothing; --exclude some, or see each experiment with --table or "
            "python -m diffusion_policy.scripts.compare"
        )


def require_scores(sweep: Sequence[Progress], keys: Sequence[str]) -> None:
    """Refuse a score that no run has logged.

    Raises:
        UserError: names it and those that are logged.
    """
    for key in keys:
        if not any(len(progress.evaluations[key]) for progress in sweep):
            raise UserError(f"no run has logged {key}; {_choice(sweep)}")


def _choice(sweep: Sequence[Progress]) -> str:
    """What to do in place of asking for a score that nobody has logged."""
    names = {
        key
        for progress in sweep
        for record in read_log(progress.run.log)
        for key in record
        if "/" in key and "/sim_" not in key
    }
    if not names:
        return "they have no rollout yet: --watch them, or come back later"
    return f"choose with -k from {', '.join(sorted(names))}"


def remarks(sweep: Sequence[Progress], key: str) -> list[str]:
    """A line for each run that does not count as it should, for its user to decide."""
    lines = []
    longest = max((len(progress.evaluations[key]) for progress in sweep), default=0)
    for progress in sweep:
        name, n = progress.run.name, len(progress.evaluations[key])
        if n == 0:
            lines.append(f"{name} ({progress.state}) has no {key} and is left out")
        elif n < longest and progress.state is not State.RUNNING:
            lines.append(
                f"{name} ({progress.state}) has {n} of {longest} evaluations by {key}, so only {n} "
                f"of each run count; leave it out with --exclude {name}"
            )
    return lines


def counted(sweep: Sequence[Progress], key: str) -> list[Evaluations]:
    """The evaluations of the runs that have some."""
    return [progress.evaluations[key] for progress in sweep if len(progress.evaluations[key])]
