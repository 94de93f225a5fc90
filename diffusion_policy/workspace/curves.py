"""The curves of a run as one picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

from diffusion_policy.util.json_logger import read_log
from diffusion_policy.util.output_dir import writing

mpl.use("Agg")
import matplotlib.pyplot as plt


def plot_curves(log_path: Path, picture: Path) -> None:
    """Draw losses, score, success rate and learning rate of a ``logs.json.txt`` over steps.

    Success is drawn with its 95 % interval where the log has it.

    Raises:
        UserError: the picture cannot be written.
    """
    records = read_log(log_path)

    def series(key: str) -> tuple[np.ndarray, np.ndarray]:
        points = [
            (r["global_step"], r[key]) for r in records if isinstance(r.get(key), int | float)
        ]
        steps, values = np.array(points, dtype=float).reshape(-1, 2).T
        return steps, values

    figure, (loss_axes, score_axes, lr_axes) = plt.subplots(
        1, 3, figsize=(15, 4.2), constrained_layout=True, width_ratios=[2, 2, 1]
    )
    steps, loss = series("train_loss")
    loss_axes.plot(steps, loss, color="tab:blue", alpha=0.25, linewidth=0.6)
    if len(loss):
        width = max(1, len(loss) // 100)
        smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
        loss_axes.plot(
            steps[width - 1 :], smooth, color="tab:blue", label=f"train, mean of {width}"
        )
    loss_axes.plot(*series("val_loss"), color="tab:orange", marker=".", label="validation")
    loss_axes.set(title="loss", xlabel="optimiser step", yscale="log")
    loss_axes.legend()
    for prefix, color in (("train", "tab:blue"), ("test", "tab:orange")):
        steps, score = series(f"{prefix}/mean_score")
        score_axes.plot(
            steps, score, color=color, linestyle="--", marker=".", label=f"{prefix} mean max reward"
        )
        steps, rate = series(f"{prefix}/success_rate")
        score_axes.plot(steps, rate, color=color, marker="o", label=f"{prefix} success rate")
        low, high = series(f"{prefix}/success_ci_low")[1], series(f"{prefix}/success_ci_high")[1]
        if prefix == "test" and len(low) == len(high) == len(steps):
            score_axes.fill_between(
                steps, low, high, color=color, alpha=0.15, label="95 % interval"
            )
    score_axes.set(title="rollouts", xlabel="optimiser step", ylim=(-0.02, 1.02))
    score_axes.legend(loc="best", fontsize="small", framealpha=0.5)
    lr_axes.plot(*series("lr"), color="tab:gray")
    lr_axes.set(title="learning rate", xlabel="optimiser step")
    lr_axes.locator_params(axis="x", nbins=4)  # more labels would touch in this narrow panel
    for axes in (loss_axes, score_axes, lr_axes):
        axes.grid(alpha=0.3)
    with writing(picture):
        figure.savefig(picture, dpi=90)
    plt.close(figure)
