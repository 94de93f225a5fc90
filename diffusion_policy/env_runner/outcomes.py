"""What a task says about its episodes, for reports: where rewards lie, and kinds of failures.

A task declares both as ``task.env_runner.outcomes``::

    outcomes:
      reward_range: [0, 1]
      failures:
        near miss: {at_least: 0.95}
        slow: {last_part: 0.1}
        lost: {below: 0.8}
        in between: {}

A failed episode is of the first kind whose conditions all hold. Nothing here changes a score.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from diffusion_policy.util.config import plain, require_known, shown
from diffusion_policy.util.errors import UserError

NEAR_MISS = "near miss"
"""Failures of this kind are listed one by one, if a task has it."""
LAST_PART = 0.1
"""The part of an episode's steps that is late, unless a task says otherwise."""
_WHERE = "task.env_runner.outcomes"
_CONDITIONS = ("at_least", "below", "last_part")
_GENERIC = {"still improving": {"last_part": LAST_PART}, "stopped improving": {}}
"""Kinds of a task that declares none: they need no scale of rewards."""


@dataclass(frozen=True)
class FailureKind:
    """Failed episodes that have something in common.

    Attributes:
        name: of the kind.
        at_least, below: the max reward is at least, or below this; None does not ask.
        last_part: the best reward came within this last part of the steps, in (0, 1).
    """

    name: str
    at_least: float | None = None
    below: float | None = None
    last_part: float | None = None

    @classmethod
    def parse(cls, name: str, conditions: Any) -> FailureKind:
        """From an entry of ``failures``.

        Raises:
            UserError: a condition is unknown, no number, or out of its range.
        """
        where = f"{_WHERE}.failures.{name}"
        if not isinstance(conditions, dict):
            raise UserError(f"{where} is {shown(conditions)}; write conditions, or {{}} for none")
        require_known(where, conditions, _CONDITIONS)
        for key, value in conditions.items():
            if not _is_finite(value):
                raise UserError(f"{where}.{key} is {shown(value)}; use a number")
        kind = cls(name, **conditions)
        if kind.last_part is not None and not 0 < kind.last_part < 1:
            raise UserError(f"{where}.last_part is {kind.last_part}; use more than 0, less than 1")
        return kind

    @property
    def conditions(self) -> dict[str, float]:
        """What it asks, as it is declared."""
        return {key: value for key in _CONDITIONS if (value := getattr(self, key)) is not None}

    @property
    def meaning(self) -> str:
        """The conditions in words."""
        words = {
            "at_least": "max reward of {:g} or more",
            "below": "max reward below {:g}",
            "last_part": "best reward within the last {:g} % of the steps",
        }
        shown = {**self.conditions}
        if self.last_part is not None:
            shown["last_part"] = 100 * self.last_part
        return ", ".join(words[key].format(value) for key, value in shown.items()) or "any other"

    def holds(self, episode: Mapping[str, Any]) -> bool:
        """Whether an episode of ``eval_info.json`` meets the conditions."""
        reward = episode["max_reward"]
        return (
            (self.at_least is None or reward >= self.at_least)
            and (self.below is None or reward < self.below)
            and (self.last_part is None or rose_late(episode, self.last_part))
        )


@dataclass(frozen=True)
class Outcomes:
    """How to read the rewards of a task's episodes.

    Attributes:
        kinds: of failures, the last one without conditions.
        reward_range: least and largest max reward that an episode can have; None is unknown.
    """

    kinds: Sequence[FailureKind]
    reward_range: tuple[float, float] | None = None

    @classmethod
    def parse(cls, declared: Mapping[str, Any] | None) -> Outcomes:
        """From ``task.env_runner.outcomes``; None, or a part that is left out, is generic.

        Raises:
            UserError: the declaration has another form.
        """
        declared = plain(declared or {})
        if not isinstance(declared, dict):
            raise UserError(f"{_WHERE} is {shown(declared)}; write reward_range and failures")
        require_known(_WHERE, declared, ("reward_range", "failures"))
        failures = _GENERIC if declared.get("failures") is None else declared["failures"]
        if not isinstance(failures, dict):
            raise UserError(f"{_WHERE}.failures is {shown(failures)}; write conditions by kind")
        kinds = [FailureKind.parse(str(name), each) for name, each in failures.items()]
        if not kinds or kinds[-1].conditions:
            kinds.append(FailureKind("other"))
        return cls(tuple(kinds), _range(declared.get("reward_range")))

    @property
    def declaration(self) -> dict[str, Any]:
        """Plain data of which :meth:`parse` makes the same."""
        reward_range = None if self.reward_range is None else list(self.reward_range)
        return {
            "reward_range": reward_range,
            "failures": {kind.name: kind.conditions for kind in self.kinds},
        }

    def kind(self, episode: Mapping[str, Any]) -> FailureKind:
        """The kind of a failed episode of ``eval_info.json``."""
        return next(kind for kind in self.kinds if kind.holds(episode))

    def count(self, episodes: Iterable[Mapping[str, Any]]) -> dict[str, int]:
        """Failed episodes of each kind.

        Records of early versions lack the step of the best reward. Kinds that ask for it are left
        out then.
        """
        episodes = list(episodes)
        telling = all(episode.get("best_step") is not None for episode in episodes)
        names = [self.kind(episode).name for episode in failed(episodes)]
        return {
            kind.name: names.count(kind.name)
            for kind in self.kinds
            if telling or kind.last_part is None
        }

    def near_misses(self, episodes: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The failed episodes of the kind :data:`NEAR_MISS`."""
        return [each for each in failed(episodes) if self.kind(each).name == NEAR_MISS]


def failed(episodes: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The episodes that are known to have failed: an environment may not tell success."""
    return [episode for episode in episodes if episode["success"] is False]


def rose_late(episode: Mapping[str, Any], last_part: float) -> bool:
    """Whether the best reward came within the last part of the steps."""
    best_step, length = episode.get("best_step"), episode["length"]
    return best_step is not None and best_step > length - round(last_part * length)


def _range(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    if not (isinstance(value, list) and len(value) == 2 and all(map(_is_finite, value))):
        raise UserError(f"{_WHERE}.reward_range is {shown(value)}; use [least, largest]")
    low, high = value
    if not low < high:
        raise UserError(f"{_WHERE}.reward_range is {value}; the second must be the larger one")
    return low, high


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
