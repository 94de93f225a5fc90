"""Which settings differ between runs, and which runs are one experiment with several seeds."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from diffusion_policy.util.errors import UserError
from diffusion_policy.workspace.changed_settings import ABSENT, WITHOUT_EFFECT, is_among, since_then


class HasSettings(Protocol):
    """A run: one that train.py made, or one on record."""

    @property
    def directory(self) -> Path:
        """Where it lies."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Its config, flat."""

    @property
    def seed(self) -> Any:
        """Seed of its training."""


MAX_LABEL_SETTINGS = 6
"""A label with more settings is no longer read."""

R = TypeVar("R", bound=HasSettings)


def differences(runs: Sequence[HasSettings]) -> dict[str, list[Any]]:
    """The settings that are not equal in all ``runs``: a value per run, or :data:`ABSENT`.

    A section that is null or empty in one of the runs counts as one setting, of which the others
    show the class.
    """
    settings = [since_then(run.settings) for run in runs]
    keys = dict.fromkeys(key for run in settings for key in run)
    parents = {key.rpartition(".")[0] for key in keys}
    closed = [key for key in keys if key in parents]
    settings = [_folded(run, closed) for run in settings]
    keys = dict.fromkeys(key for run in settings for key in run)
    table = {key: [run.get(key, ABSENT) for run in settings] for key in keys}
    return {key: row for key, row in table.items() if any(value != row[0] for value in row)}


def _folded(settings: Mapping[str, Any], sections: Sequence[str]) -> dict[str, Any]:
    """``settings`` with one entry for each of ``sections`` that they hold."""
    folded: dict[str, Any] = {}
    for key, value in settings.items():
        section = next((each for each in sections if key.startswith(f"{each}.")), None)
        if section is None:
            folded[key] = value
        else:
            folded[section] = settings.get(f"{section}._target_", "{...}")
    return folded


def tells_apart(key: str) -> bool:
    """Whether another value of ``key`` makes another experiment, not another seed of the same."""
    return not is_seed(key) and not is_among(key, WITHOUT_EFFECT)


def is_seed(key: str) -> bool:
    """Whether ``key`` is a seed, of whatever."""
    return key.rpartition(".")[2] == "seed"


def experiments(runs: Sequence[R]) -> list[list[R]]:
    """Group the runs that differ in their seeds only, in the order of their first runs."""
    groups: dict[str, list[R]] = {}
    for run in runs:
        settings = since_then(run.settings)
        telling = {key: value for key, value in settings.items() if tells_apart(key)}
        groups.setdefault(json.dumps(telling, sort_keys=True, default=str), []).append(run)
    return list(groups.values())


def require_distinct_seeds(experiment: Sequence[HasSettings]) -> None:
    """Check that the runs of one experiment are independent samples, as far as seeds are known.

    Raises:
        UserError: two runs have the same seed.
    """
    first_of: dict[str, Path] = {}
    for run in experiment:
        if run.seed is None:
            continue
        if str(run.seed) in first_of:
            raise UserError(
                f"{first_of[str(run.seed)]} and {run.directory} have the same settings and seed "
                f"({run.seed}), so they are no independent runs; leave one of them out"
            )
        first_of[str(run.seed)] = run.directory


def labels(groups: Sequence[Sequence[HasSettings]], names: Sequence[Hashable]) -> list[str]:
    """Label each group by the settings that differ from other groups: ``optimizer.lr=0.001``.

    Only groups of the same name are told apart: methods differ in dozens of settings, and their
    names say so already. A group with a name of its own gets "". Of more than
    :data:`MAX_LABEL_SETTINGS`, the label gives those that tell most, and counts the others.

    Args:
        groups: runs of one experiment each.
        names: names of the groups.
    """
    alike: dict[Hashable, list[HasSettings]] = {}
    for group, name in zip(groups, names, strict=True):
        alike.setdefault(name, []).append(group[0])
    columns = {name: _telling_first(runs) for name, runs in alike.items()}
    position = dict.fromkeys(columns, 0)
    found = []
    for name in names:
        found.append(_label(columns[name], position[name]))
        position[name] += 1
    return found


def shown_setting(value: Any) -> str:
    """A value as a config writes it: null, true, 0.001, [1, 2]."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _short(value: str) -> str:
    """The class of a full name; other values as they are."""
    return value.rpartition(".")[2] if re.fullmatch(r"[a-z_]\w*(\.\w+)+", value) else value


def _label(columns: Mapping[str, Sequence[Any]], i: int) -> str:
    """The label of run ``i``."""
    shown = [f"{key}={_short(shown_setting(row[i]))}" for key, row in columns.items()]
    n_more = len(shown) - MAX_LABEL_SETTINGS
    return ", ".join(shown[:MAX_LABEL_SETTINGS]) + (f" and {n_more} more" if n_more > 0 else "")


def _telling_first(runs: Sequence[HasSettings]) -> dict[str, list[Any]]:
    """The settings that differ, with a value per run; first those that together tell runs apart.

    These are few, by a greedy search. Of several that do equally well, the last one in the config
    comes first: hyperparameters stand at its end.
    """
    columns = {key: row for key, row in differences(runs).items() if tells_apart(key)}

    def n_distinct(keys: list[str]) -> int:
        return len({tuple(str(columns[key][i]) for key in keys) for i in range(len(runs))})

    chosen: list[str] = []
    while n_distinct(chosen) < len(runs) and len(chosen) < len(columns):
        rest = [key for key in reversed(columns) if key not in chosen]
        chosen.append(max(rest, key=lambda key: n_distinct([*chosen, key])))
    first = [key for key in columns if key in chosen]
    return {key: columns[key] for key in [*first, *columns]}
