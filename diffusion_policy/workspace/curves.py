"""The curves of a run as one image."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from diffusion_policy.util.json_logger import read_log
from diffusion_policy.util.output_dir import write_atomically

_BELOW = {
    "grad_norm": "norm of the gradient",
    "train_action_mse_error": "squared error of training actions",
    "lr": "learning rate",
}
"""Title of each key of the log that is drawn below the losses."""
Records = Sequence[Mapping[str, Any]]


def plot_curves(log_path: Path, image: Path) -> None:
    """Draw :func:`curves` of a ``logs.json.txt``.

    Raises:
        UserError: the image cannot be written.
    """
    buffer = io.BytesIO()
    curves(read_log(log_path)).savefig(buffer, format="png", dpi=90)
    write_atomically(image, buffer.getvalue())


def curves(records: Records) -> Figure:
    """What was logged, over steps: losses and scores; below them what explains them."""
    rolled_out = any("test/mean_score" in r or "train/mean_score" in r for r in records)
    shown = [key for key in _BELOW if any(key in record for record in records)] or ["lr"]
    figure = Figure(figsize=(11, 7), layout="constrained")
    rows: Any = figure.subfigures(2, 1, height_ratios=[3, 2])  # an array; its type says less
    above, below = rows
    main = above.subplots(1, 1 + rolled_out, squeeze=False)[0]
    _draw_losses(main[0], records)
    if rolled_out:
        _draw_scores(main[1], records)
    small = below.subplots(1, len(shown), squeeze=False)[0]
    for axes, key in zip(small, shown, strict=True):
        axes.plot(*_series(records, key), color="tab:gray", linewidth=0.8, marker=".", markersize=3)
        axes.set_title(_BELOW[key])
    for axes in (*main, *small):
        axes.set_xlabel("optimiser step")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 200k: short labels do not touch
        axes.grid(alpha=0.3)
    return figure


def _series(records: Records, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the records that have the key."""
    logged = [r for r in records if "global_step" in r and isinstance(r.get(key), int | float)]
    points = [(r["global_step"], r[key]) for r in logged]
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
