"""Recorded runs that differ in their seed alone, taken together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffusion_policy.runs.published import Measure
from diffusion_policy.runs.result import Result, duration, percent, thousandths
from diffusion_policy.runs.settings import require_other_seeds, same_but_seed
from diffusion_policy.util.config import config_leaves
from diffusion_policy.util.statistics import mean_and_half_width


@dataclass(frozen=True)
class SeedGroup:
    """One or more runs of the same settings.

    Attributes:
        results: by seed.
    """

    results: Sequence[Result]

    def mean(self, measure: Measure) -> float:
        """Over the seeds, each of which counts the same."""
        return float(mean_and_half_width([result.score[measure] for result in self.results])[0])

    def interval(self, measure: Measure) -> tuple[float, float]:
        """A 95 % interval: over seeds by Student's t, or over the episodes of the only one."""
        values = [result.score[measure] for result in self.results]
        if len(values) == 1:
            ends = {"success_rate": "success_ci95", "mean_max_reward": "mean_max_reward_ci95"}
            low, high = self.results[0].score[ends[measure]]
            return low, high
        mean, half_width = mean_and_half_width(values)
        return max(0.0, float(mean - half_width)), min(1.0, float(mean + half_width))

    def text(self, measure: Measure) -> str:
        """The mean and the interval, rounded down."""
        low, high = self.interval(measure)
        if measure == "success_rate":
            return f"{percent(self.mean(measure))} % ({percent(low)} to {percent(high)})"
        return f"{thousandths(self.mean(measure))} ({thousandths(low)} to {thousandths(high)})"

    @property
    def effort(self) -> str:
        """What each training took."""
        if len(self.results) == 1:
            return self.results[0].effort
        steps = _range(sorted(result.n_steps for result in self.results), "{:,}".format)
        times = _range(sorted(result.seconds for result in self.results), duration)
        return f"each {steps} steps of {self.results[0].batch_size} in {times}"


def _range(values: Sequence[float], shown: Callable[[float], str]) -> str:
    ends = list(dict.fromkeys([shown(values[0]), shown(values[-1])]))
    return " to ".join(ends)


def group_by_seed(results: Sequence[Result]) -> list[SeedGroup]:
    """Runs of the same settings, those of the evaluation included, in the order of the first.

    Raises:
        UserError: two are of the same seed as well.
    """
    groups = same_but_seed(results, _settings)
    for group in groups:
        require_other_seeds(
            (result.cfg.training.seed, f"docs/results/{result.name}") for result in group
        )
    return [
        SeedGroup(sorted(group, key=lambda result: result.cfg.training.seed)) for group in groups
    ]


def _settings(result: Result) -> Mapping[str, Any]:
    evaluation = {
        "evaluation.seeds": result.info["seed_range"],
        "evaluation.as_published": result.scored_as_published,
        "evaluation.precision": result.info.get("precision", "fp32"),
    }
    return {**config_leaves(result.evaluated_cfg), **evaluation}
