"""Find the runs below a directory, and tell how far each one is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from diffusion_policy.checkpoint.migration import migrate_config
from diffusion_policy.util.config import config_leaves
from diffusion_policy.util.errors import UserError

METRICS_FOLDER = "metrics"
"""Folder of a sweep that holds what was made from its runs, and is none of them."""
_LOG, _CONFIG = "logs.json.txt", ".hydra/config.yaml"


class State(StrEnum):
    """How far a run is: a stopped one neither goes on nor reached its end."""

    FINISHED = "finished"
    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Run:
    """An output directory of train.py.

    Attributes:
        directory: the directory.
        name: how it is told from the other runs: its path below what they share.
        settings: its config, flat (``optimizer.lr``); empty for a log without one.
    """

    directory: Path
    name: str
    settings: Mapping[str, Any] = field(repr=False)

    @property
    def log(self) -> Path:
        return self.directory / _LOG

    @property
    def seed(self) -> Any:
        return self.settings.get("training.seed")

    def state(self, held: bool, last: Mapping[str, Any] | None) -> State:
        """Its state; finished are those that logged the rollout of their last epoch.

        Args:
            held: whether a process held its directory before the log was read.
            last: last record of the log.
        """
        if held:
            return State.RUNNING
        n_epochs = self.settings.get("training.num_epochs")
        if last is None or n_epochs is None or last.get("epoch") != n_epochs - 1:
            return State.STOPPED
        # Only rollouts log names with a slash, which divides the group of seeds from the score.
        return State.FINISHED if any("/" in key for key in last) else State.STOPPED


def find_runs(directory: Path, depth: int = 1) -> list[Run]:
    """The runs at ``directory`` or at most ``depth`` folders below, in natural order of names.

    Raises:
        UserError: there is no such directory.
    """
    if not directory.is_dir():
        raise UserError(f"{directory} is not a directory; give an output directory of train.py -m")
    found = [
        Run(path, str(path.relative_to(directory)), _settings(path / _CONFIG))
        for path in _run_directories(directory, depth)
    ]
    return sorted(found, key=lambda run: _natural(run.name))


def renamed(runs: Iterable[Run]) -> list[Run]:
    """The runs of several directories, each once, named by their paths below what all share."""
    unique = {run.directory.resolve(): run for run in runs}
    shared = os.path.commonpath([path.parent for path in unique])
    return [replace(run, name=str(path.relative_to(shared))) for path, run in unique.items()]


def _run_directories(directory: Path, depth: int) -> Iterable[Path]:
    if (directory / _LOG).is_file() or (directory / _CONFIG).is_file():
        yield directory
    elif depth:
        for path in directory.iterdir():
            if path.is_dir() and path.name != METRICS_FOLDER:
                yield from _run_directories(path, depth - 1)


def _settings(path: Path) -> Mapping[str, Any]:
    return _read_settings(path, path.stat().st_mtime_ns) if path.is_file() else {}


@cache
def _read_settings(path: Path, modified_ns: int) -> Mapping[str, Any]:
    """Reading YAML takes long: once for each version of the file."""
    return config_leaves(migrate_config(OmegaConf.load(path)))


def _natural(name: str) -> list[tuple[int, str]]:
    """Orders train_2 before train_10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
