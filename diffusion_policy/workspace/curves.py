"""The curves of a run as one image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffusion_policy.util.json_logger import read_log
from diffusion_policy.util.output_dir import writing

Records = Sequence[Mapping[str, Any]]


def plot_curves(log_path: Path, image: Path) -> None:
    """Draw :func:`curves` of a ``logs.json.txt``.

    Raises:
        UserError: the image cannot be written.
    """
    figure = curves(read_log(log_path))
    with writing(image):
        figure.savefig(image, dpi=90)


def curves(records: Records) -> Figure:
    """Losses, scores and success rates if there were rollouts, and learning rate, over steps."""
    rolled_out = any("test/mean_score" in r or "train/mean_score" in r for r in records)
    widths = [2, 2, 1] if rolled_out else [2, 1]
    figure = Figure(figsize=(3 * sum(widths), 4.2), layout="constrained")
    panels = figure.subplots(1, len(widths), width_ratios=widths)
    _draw_losses(panels[0], records)
    if rolled_out:
        _draw_scores(panels[1], records)
    panels[-1].plot(*_series(records, "lr"), color="tab:gray")
    panels[-1].set_title("learning rate")
    panels[-1].locator_params(axis="x", nbins=4)  # more labels would touch in this narrow panel
    for axes in panels:
        axes.set_xlabel("optimiser step")
        axes.grid(alpha=0.3)
    return figure


def _series(records: Records, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the records that have the key."""
    points = [(r["global_step"], r[key]) for r in records if isinstance(r.get(key), int | float)]
    steps, values = np.array(points, dtype=float).reshape(-1, 2).T
    return steps, values


def _draw_losses(axes: Axes, records: Records) -> None:
    steps, loss = _series(records, "train_loss")
    axes.plot(steps, loss, color="tab:blue", alpha=0.25, linewidth=0.6)
    if len(loss):
        width = max(1, len(loss) // 100)
        smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
        label = f"train, mean of {width}" if width > 1 else "train"
        axes.plot(steps[width - 1 :], smooth, color="tab:blue", label=label)
    axes.plot(*_series(records, "val_loss"), color="tab:orange", marker=".", label="validation")
    axes.set(title="loss", yscale="log")
    axes.legend()


def score_limits(values: Iterable[float]) -> tuple[float, float] | None:
    """Limits of an axis of scores: those of a rate, if all lie between 0 and 1; else None."""
    return (-0.02, 1.02) if all(0 <= value <= 1 for value in values) else None


def _draw_scores(axes: Axes, records: Records) -> None:
    shown: list[float] = []
    for prefix, color in (("train", "tab:blue"), ("test", "tab:orange")):
        steps, score = _series(records, f"{prefix}/mean_score")
        shown += score.tolist()
        if len(steps):
            label = f"{prefix} mean max reward"
            axes.plot(steps, score, color=color, linestyle="--", marker=".", label=label)
        steps, rate = _series(records, f"{prefix}/success_rate")
        if len(steps):
            axes.plot(steps, rate, color=color, marker="o", label=f"{prefix} success rate")
        low, high = (_series(records, f"{prefix}/success_ci_{end}")[1] for end in ("low", "high"))
        if prefix == "test" and len(low) == len(high) == len(steps) > 0:
            axes.fill_between(steps, low, high, color=color, alpha=0.15, label="95 % interval")
    axes.set_title("rollouts")
    if limits := score_limits(shown):
        axes.set_ylim(limits)
    axes.legend(loc="best", fontsize="small", framealpha=0.5)
