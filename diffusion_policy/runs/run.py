"""Find the runs of train.py below a directory, and read one while it goes on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from diffusion_policy.checkpoint.migration import migrate_config
from diffusion_policy.runs.metrics import LOSSES, Evaluations, evaluations
from diffusion_policy.runs.run_log import RunLog, number
from diffusion_policy.util.config import config_leaves
from diffusion_policy.util.config_file import read_config
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.output_dir import is_held
from diffusion_policy.workspace.loggers import LOG_FILE

METRICS_FOLDER = "metrics"
"""Folder of a sweep that holds the aggregated metrics; it is not a run."""
_CONFIG = ".hydra/config.yaml"


class State(StrEnum):
    """Whether a run reached its end, goes on, or stopped before its end."""

    FINISHED = "finished"
    RUNNING = "running"
    STOPPED = "stopped"


class Run:
    """An output directory of train.py; :meth:`refresh` reads what is new.

    Args:
        directory: the directory.
        name: tells the run from others: its path below their common directory.
        keys: the numbers to read from the log.

    Attributes:
        settings: the config, flat (``optimizer.lr``). Empty if the directory has no config.
        log: the numbers that the run logged.
        state: how far the run is.
    """

    def __init__(self, directory: Path, name: str, keys: Sequence[str] = ()) -> None:
        self.directory = directory
        self.name = name
        self.log = RunLog(directory / LOG_FILE, keys, LOSSES)
        self.settings: Mapping[str, Any] = {}
        self.state = State.STOPPED

    def refresh(self) -> None:
        """Read config, log and state again."""
        config = self.directory / _CONFIG
        self.settings = _settings(config, config.stat().st_mtime_ns) if config.is_file() else {}
        # Before the log: a log is complete once no process holds the directory.
        held = is_held(self.directory)
        self.log.refresh()
        self.state = State.RUNNING if held else self._state_at_rest()

    def _state_at_rest(self) -> State:
        last = self.log.last or {}
        if self.settings.get("training.max_steps") is None:
            n_epochs = number(self.settings.get("training.num_epochs"))
            in_last_epoch = last.get("epoch") == n_epochs - 1
        else:
            in_last_epoch = self.n_steps >= number(self.settings["training.max_steps"])
        # The record of a finished epoch holds scores (only their names have a slash) or, without a
        # simulator, this error; the last epoch always does.
        epoch_ended = any("/" in key or key == "train_action_mse_error" for key in last)
        return State.FINISHED if in_last_epoch and epoch_ended else State.STOPPED

    @property
    def has_begun(self) -> bool:
        """Whether it trains or has trained: a start that failed leaves a config and no log."""
        return self.state is State.RUNNING or self.n_steps > 0

    @property
    def seed(self) -> Any:
        return self.settings.get("training.seed")

    @property
    def n_steps(self) -> int:
        """Number of optimiser steps that the run logged."""
        return (self.log.last or {}).get("global_step", -1) + 1

    def evaluations(self, key: str) -> Evaluations:
        """The evaluations of the run by the score ``key``, which is one of the keys to read."""
        return evaluations(self.log.columns(), key)


def find_runs(
    directories: Iterable[Path], keys: Sequence[str], *, depth: int = 1, may_be_empty: bool = False
) -> list[Run]:
    """Find the runs at ``directories`` or at most ``depth`` folders below them.

    Each run is listed once, in natural order, and not read yet. Its name is its path below the
    directory that all of them share.

    Args:
        keys: see :class:`Run`.
        may_be_empty: accept a directory without runs.

    Raises:
        UserError: a directory is missing or holds no run.
    """
    unique: dict[Path, Path] = {}
    for directory in directories:
        if not directory.is_dir():
            raise UserError(
                f"{directory} is not a directory; give an output directory of train.py -m"
            )
        found = sorted(_run_directories(directory, depth), key=lambda path: _natural(str(path)))
        if not found and not may_be_empty:
            raise UserError(
                f"{directory} holds no run of train.py (a folder with {LOG_FILE}); give a run, or "
                "the folder of a sweep, which holds train_0, train_1, ..."
            )
        unique |= {path.resolve(): path for path in found}
    shared = os.path.commonpath([path.parent for path in unique]) if unique else ""
    return [Run(path, str(real.relative_to(shared)), keys) for real, path in unique.items()]


def _run_directories(directory: Path, depth: int) -> Iterable[Path]:
    if (directory / LOG_FILE).is_file() or (directory / _CONFIG).is_file():
        yield directory
    elif depth:
        for path in directory.iterdir():
            if path.is_dir() and path.name != METRICS_FOLDER:
                yield from _run_directories(path, depth - 1)


@cache
def _settings(path: Path, modified_ns: int) -> Mapping[str, Any]:
    """Parsing YAML is slow, so each version of the file is parsed once."""
    return config_leaves(migrate_config(read_config(path)))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts train_2 before train_10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
