"""Curves of several runs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from diffusion_policy.runs.metrics import Evaluations, common_length
from diffusion_policy.util.statistics import mean_and_half_width, mean_by_key

Style = tuple[str, str]
"""Colour and line style of a group of runs."""
# Okabe and Ito 2008, "Color universal design". Its yellow is left out: it is faint on white.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_LINES = ("-", "--", ":", "-.")
_BINS = 200  # a curve has at most so many points: more cannot be seen
_MARKED = 20  # a curve of at most so many points has a marker at each


def group_styles(n: int) -> list[Style]:
    """Return a style for each of ``n`` groups; 28 are different."""
    styles = [(colour, line) for line in _LINES for colour in _COLOURS]
    return [styles[i % len(styles)] for i in range(n)]


def score_curves(runs: Mapping[str, Sequence[Evaluations]]) -> Figure:
    """Draw a panel for each score: each run thin, and their mean with its 95 % interval.

    The interval is Student's t over seeds, so one run has none. Mean and interval end where the
    shortest run ends.

    Args:
        runs: at least one run for each score.
    """
    figure = Figure(figsize=(6 * len(runs), 4.2), layout="constrained")
    panels = figure.subplots(1, len(runs), squeeze=False)[0]
    for axes, (key, evaluated) in zip(panels, runs.items(), strict=True):
        for run in evaluated:
            axes.plot(run.steps, run.values, color="tab:gray", linewidth=0.8, alpha=0.7)
        n = common_length(evaluated)
        steps = np.mean([run.steps[:n] for run in evaluated], axis=0)
        mean, half_width = mean_and_half_width([run.values[:n] for run in evaluated])
        label = f"mean of {len(evaluated)} runs" if len(evaluated) > 1 else "one run"
        axes.plot(steps, mean, color="tab:blue", marker=".", label=label)
        if len(evaluated) > 1:
            low, high = mean - half_width, mean + half_width
            axes.fill_between(
                steps, low, high, color="tab:blue", alpha=0.2, linewidth=0, label="95 % interval"
            )
        axes.set(title=key, xlabel="optimiser step")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


def group_curves(
    groups: Sequence[Sequence[np.ndarray]],
    styles: Sequence[Style],
    seeds: Sequence[Sequence[Hashable]],
) -> Figure:
    """Draw each run thin and the mean of each group over seeds bold, in the style of the group.

    Args:
        groups: for each run of each group a curve (N, 2) of step and value.
        seeds: of each run of each group. The mean takes repeats of a seed once.
    """
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.subplots()
    last_step = max(run[-1, 0] for group in groups for run in group if len(run))
    width = max(1.0, last_step / _BINS)
    for group, (colour, dashes), of_runs in zip(groups, styles, seeds, strict=True):
        drawn = [_binned(run, width) for run in group if len(run)]
        drawn_seeds = [seed for run, seed in zip(group, of_runs, strict=True) if len(run)]
        for run in drawn:
            axes.plot(*run.T, color=colour, linestyle=dashes, linewidth=0.8, alpha=0.45)
        n = min(map(len, drawn), default=0)
        marker = "." if n <= _MARKED else ""
        if n:
            mean = np.mean(mean_by_key([run[:n] for run in drawn], drawn_seeds), axis=0)
            axes.plot(*mean.T, color=colour, linestyle=dashes, linewidth=1.8, marker=marker)
    axes.set(xlabel="optimiser step", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _binned(curve: np.ndarray, width: float) -> np.ndarray:
    """(N, 2) -> (M, 2): average the points of every ``width`` steps; empty bins are left out."""
    _, bins, counts = np.unique(curve[:, 0] // width, return_inverse=True, return_counts=True)
    return np.stack([np.bincount(bins, column) / counts for column in curve.T], axis=1)
