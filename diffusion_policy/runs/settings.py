"""Which settings tell runs apart, and which runs are the same experiment under other seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from diffusion_policy.runs.runs import Run
from diffusion_policy.util.errors import UserError
from diffusion_policy.workspace.changed_settings import ABSENT, WITHOUT_EFFECT, is_among, since_then

T = TypeVar("T")


def differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The settings that are not the same in all ``runs``: a value a run, or :data:`ABSENT`."""
    settings = [since_then(run.settings) for run in runs]
    keys = dict.fromkeys(key for run in settings for key in run)
    table = {key: [run.get(key, ABSENT) for run in settings] for key in keys}
    return {key: row for key, row in table.items() if any(value != row[0] for value in row)}


def tells_apart(key: str) -> bool:
    """Whether runs with other values of ``key`` are other experiments, not other seeds of one."""
    if key.rpartition(".")[2] == "seed":
        return False
    return not is_among(key, WITHOUT_EFFECT)


def same_but_seed(
    items: Sequence[T], settings_of: Callable[[T], Mapping[str, Any]]
) -> list[list[T]]:
    """``items``, of one run each, in groups of one experiment, in the order of their first ones."""
    groups: dict[str, list[T]] = {}
    for item in items:
        groups.setdefault(_experiment(settings_of(item)), []).append(item)
    return list(groups.values())


def require_other_seeds(runs: Iterable[tuple[Any, object]]) -> None:
    """Refuse runs of one experiment that are no independent samples.

    Args:
        runs: seed and place of each.

    Raises:
        UserError: two have the same seed.
    """
    first_of: dict[str, object] = {}
    for seed, place in runs:
        if str(seed) in first_of:
            raise UserError(
                f"{first_of[str(seed)]} and {place} have the same settings and seed ({seed}), so "
                "they are no independent runs; leave one of them out"
            )
        first_of[str(seed)] = place


def _experiment(settings: Mapping[str, Any]) -> str:
    telling = {key: value for key, value in since_then(settings).items() if tells_apart(key)}
    return json.dumps(telling, sort_keys=True, default=str)


def labels(groups: Sequence[Sequence[Run]], names: Sequence[Hashable]) -> list[str]:
    """The settings that tell each group from those of the same name: ``optimizer.lr=0.001``.

    Args:
        groups: runs of one experiment each.
        names: of the groups. Methods differ in dozens of settings, and their names say so; within
            a name the fewest settings that do it are named. A name of its own needs none: "".
    """
    alike: dict[Hashable, list[Run]] = {}
    for group, name in zip(groups, names, strict=True):
        alike.setdefault(name, []).append(group[0])
    telling = {name: _telling_keys(runs) for name, runs in alike.items()}
    return [
        ", ".join(f"{key}={group[0].settings.get(key, ABSENT)}" for key in telling[name])
        for group, name in zip(groups, names, strict=True)
    ]


def _telling_keys(runs: Sequence[Run]) -> list[str]:
    """Settings whose values are other ones in each of ``runs``, found greedily: few, if not least.

    Of several that would do, the last of the config is taken: there are the hyperparameters.
    """
    columns = {key: row for key, row in differences(runs).items() if tells_apart(key)}

    def n_told(keys: list[str]) -> int:
        return len({tuple(str(columns[key][i]) for key in keys) for i in range(len(runs))})

    chosen: list[str] = []
    while n_told(chosen) < len(runs) and len(chosen) < len(columns):
        rest = [key for key in reversed(columns) if key not in chosen]
        chosen.append(max(rest, key=lambda key: n_told([*chosen, key])))
    return [key for key in columns if key in chosen]
