"""Recorded runs that differ in their seed alone, taken together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from diffusion_policy.results.published import Measure
from diffusion_policy.results.result import Result, duration, percent, thousandths


@dataclass(frozen=True)
class SeedGroup:
    """One or more runs of the same settings.

    Attributes:
        results: by seed.
    """

    results: Sequence[Result]

    def mean(self, measure: Measure) -> float:
        """Over the seeds, each of which counts the same."""
        return sum(result.score[measure] for result in self.results) / len(self.results)

    def interval(self, measure: Measure) -> tuple[float, float]:
        """From the lowest to the highest end of the seeds' 95 % intervals.

        Wider than an interval of the mean, and so whatever the seeds share: they are scored on the
        same starts.
        """
        name = {"success_rate": "success_ci95", "mean_max_reward": "mean_max_reward_ci95"}[measure]
        lows, highs = zip(*(result.score[name] for result in self.results), strict=True)
        return min(lows), max(highs)

    def text(self, measure: Measure) -> str:
        """The mean and the interval, rounded down."""
        low, high = self.interval(measure)
        if measure == "success_rate":
            return f"{percent(self.mean(measure))} % ({percent(low)} to {percent(high)})"
        return f"{thousandths(self.mean(measure))} ({thousandths(low)} to {thousandths(high)})"

    @property
    def effort(self) -> str:
        """What a training took."""
        first = self.results[0]
        if len(self.results) == 1:
            return first.effort
        steps = max(result.n_steps for result in self.results)
        longest = duration(max(result.seconds for result in self.results))
        return f"each up to {steps:,} steps of {first.batch_size} in up to {longest}"


def group_by_seed(results: Iterable[Result]) -> list[SeedGroup]:
    """Runs of the same settings, those of the evaluation included, in the order of the first."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(_settings(result), []).append(result)
    return [
        SeedGroup(sorted(group, key=lambda result: result.cfg.training.seed))
        for group in groups.values()
    ]


def _settings(result: Result) -> str:
    """All settings that a run was trained and evaluated with, but for seeds, as a key."""
    changes = [override.lstrip("+") for override in result.info.get("overrides", [])]
    cfg = OmegaConf.merge(result.cfg, OmegaConf.from_dotlist(changes))
    evaluation = [result.info.get(key) for key in ("precision", "seed_range")]
    settings = _without_seeds(OmegaConf.to_container(cfg))
    return json.dumps([settings, evaluation], sort_keys=True)


def _without_seeds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_seeds(item) for key, item in value.items() if key != "seed"}
    return [_without_seeds(item) for item in value] if isinstance(value, list) else value
