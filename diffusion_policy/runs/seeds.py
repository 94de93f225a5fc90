"""Runs on record that differ in their seeds only, as one score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diffusion_policy.runs.published import Measure
from diffusion_policy.runs.result import Result, duration, percent, thousandths
from diffusion_policy.runs.settings import experiments, require_distinct_seeds
from diffusion_policy.util.statistics import mean_and_half_width

_INTERVALS = {"success_rate": "success_ci95", "mean_max_reward": "mean_max_reward_ci95"}


@dataclass(frozen=True)
class SeedGroup:
    """One or more runs of the same settings.

    Attributes:
        results: in the order of their seeds.
    """

    results: Sequence[Result]

    def knows(self, measure: Measure) -> bool:
        """Whether each run has the measure: an environment need not tell success."""
        return None not in (result.score[measure] for result in self.results)

    def mean(self, measure: Measure) -> float:
        """Mean over the seeds."""
        return float(mean_and_half_width(self._values(measure))[0])

    def interval(self, measure: Measure) -> tuple[float, float]:
        """95 % interval: Student's t over seeds, or over the episodes of a single run."""
        if len(self.results) == 1:
            low, high = self.results[0].score[_INTERVALS[measure]]
            return low, high
        mean, half_width = map(float, mean_and_half_width(self._values(measure)))
        low, high = self._range(measure)
        return max(low, mean - half_width), min(high, mean + half_width)

    def _range(self, measure: Measure) -> tuple[float, float]:
        """Least and largest value: of a reward what the task declares, if it does."""
        if measure == "success_rate":
            return 0.0, 1.0
        return self.results[0].outcomes.reward_range or (-math.inf, math.inf)

    def _values(self, measure: Measure) -> list[float]:
        return [result.score[measure] for result in self.results]

    def text(self, measure: Measure) -> str:
        """Mean and interval, rounded down."""
        if not self.knows(measure):
            return "unknown"
        low, high = self.interval(measure)
        if measure == "success_rate":
            return f"{percent(self.mean(measure))} % ({percent(low)} to {percent(high)})"
        return f"{thousandths(self.mean(measure))} ({thousandths(low)} to {thousandths(high)})"

    @property
    def effort(self) -> str:
        """Steps, batch size and time of each training."""
        if len(self.results) == 1:
            return self.results[0].effort
        steps = _range(sorted(result.n_steps for result in self.results), "{:,}".format)
        times = _range(sorted(result.seconds for result in self.results), duration)
        return f"each {steps} steps of {self.results[0].batch_size} in {times}"


def _range(values: Sequence[float], show: Callable[[float], str]) -> str:
    ends = dict.fromkeys([show(values[0]), show(values[-1])])
    return " to ".join(ends)


def group_by_seed(results: Sequence[Result]) -> list[SeedGroup]:
    """Group runs of the same settings in training and evaluation, in the order of the first runs.

    Raises:
        UserError: two runs of a group have the same seed.
    """
    groups = experiments(results)
    for group in groups:
        require_distinct_seeds(group)
    return [SeedGroup(sorted(group, key=lambda result: result.seed)) for group in groups]
