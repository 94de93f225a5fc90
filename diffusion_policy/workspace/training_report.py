"""A training run to look at: one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from diffusion_policy.dataset.base_dataset import BaseDataset
from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.spec.task_spec import Field
from diffusion_policy.util.frames import show_frame
from diffusion_policy.util.html_page import data_url, png, render
from diffusion_policy.util.json_logger import read_log
from diffusion_policy.util.output_dir import write_atomically
from diffusion_policy.workspace.curves import curves
from diffusion_policy.workspace.loggers import LOG_FILE
from diffusion_policy.workspace.open_loop import N_FRAMES, OpenLoopEpisode, open_loop

REPORT_FILE = "report.html"
_RECORDED, _PREDICTED = "#222222", "tab:orange"
_WIDTH = 11.0  # inches: with fonts of 10 points they look the same in all figures of the page


def write_report(
    output_dir: Path,
    name: str,
    policy: BasePolicy,
    datasets: tuple[BaseDataset, BaseDataset],
    device: torch.device,
    seed: int,
    launch: Mapping[str, str],
) -> Path:
    """Write the page of the run in ``output_dir``; returns its path.

    Args:
        name: of the run.
        policy: on ``device``.
        datasets: for training and validation; the page shows episodes of the latter, if any.
        seed: of the training, and of what the policy draws here.
        launch: command, commit and machine.

    Raises:
        UserError: it cannot be written.
    """
    training, held_out = datasets
    episodes = open_loop(policy, held_out if len(held_out) else training, device, seed)
    records = read_log(output_dir / LOG_FILE)
    images: dict[str, Figure | None] = {"curves": curves(records), "actions": None, "frames": None}
    if episodes:
        images["actions"] = action_curves(episodes, policy.shape_meta.action)
    if any(episode.frames for episode in episodes):
        images["frames"] = frame_sheet(episodes)
    page = render(
        "workspace/training_report.html",
        title=f"Training of {name}",
        run=str(output_dir),
        numbers=_numbers(records, episodes),
        origin=[*launch.items(), ("device", str(device)), ("seed", str(seed))],
        of_what="episodes held out from training" if len(held_out) else "training episodes",
        **{key: figure and data_url("image/png", png(figure)) for key, figure in images.items()},
    )
    write_atomically(output_dir / REPORT_FILE, page.encode())
    return output_dir / REPORT_FILE


def _numbers(
    records: Sequence[dict[str, Any]], episodes: Sequence[OpenLoopEpisode]
) -> list[tuple[str, str, str]]:
    """(what, value, detail) of the numbers at the top."""
    numbers = []
    # A loss that is not finite is text in the log.
    if validated := [r for r in records if isinstance(r.get("val_loss"), int | float)]:
        best = min(validated, key=lambda record: record["val_loss"])
        detail = f"after {best['global_step'] + 1:,} steps; last {validated[-1]['val_loss']:.4g}"
        numbers.append(("best validation loss", f"{best['val_loss']:.4g}", detail))
    last = records[-1]
    detail = f"mean of the last epoch, after {last['global_step'] + 1:,} steps"
    numbers.append(("training loss", f"{last['train_loss']:.4g}", detail))
    if episodes:
        error = float(np.sqrt(np.mean([episode.error for episode in episodes])))
        numbers.append(("action error", f"{error:.3g}", "root mean square over the episodes below"))
    return numbers


def action_curves(episodes: Sequence[OpenLoopEpisode], action: Field) -> Figure:
    """A row for each number of an action, a column for each episode."""
    names = action_names(action)
    figure = Figure(figsize=(_WIDTH, 1.5 * len(names) + 1), layout="constrained")
    grid = figure.subplots(len(names), len(episodes), squeeze=False, sharex="col", sharey="row")
    for column, episode in zip(grid.T, episodes, strict=True):
        steps = np.arange(len(episode.recorded))
        for dim, axes in enumerate(column):
            axes.plot(steps, episode.recorded[:, dim], color=_RECORDED, lw=1.4, label="recorded")
            predicted = _broken_at(episode.predicted[:, dim], episode.chunk_steps)
            axes.plot(*predicted, color=_PREDICTED, lw=1.2, label="predicted")
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        column[0].set_title(
            f"episode {episode.number}, error {np.sqrt(episode.error):.3g}", fontsize=10
        )
        column[-1].set_xlabel("step")
    for axes, name in zip(grid[:, 0], names, strict=True):
        axes.set_ylabel(name)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    return figure


def _broken_at(values: np.ndarray, chunk_steps: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The steps that have values; a gap divides chunks of several actions, which need not meet."""
    steps = np.flatnonzero(np.isfinite(values))
    values = values[steps]
    if len(steps) <= len(chunk_steps):
        return steps, values
    gaps = np.searchsorted(steps, chunk_steps[1:])
    return np.insert(steps.astype(float), gaps, np.nan), np.insert(values, gaps, np.nan)


def action_names(action: Field) -> list[str]:
    """A name for each number of an action: of its part, where the task names parts."""
    named = [
        f"{part.name} {i}" if part.size > 1 else part.name
        for part in action.parts
        for i in range(part.size)
    ]
    return named or [f"action {i}" for i in range(action.shape[0])]


def frame_sheet(episodes: Sequence[OpenLoopEpisode]) -> Figure:
    """A row of frames for each episode and camera."""
    rows = [(e.number, key, shown) for e in episodes for key, shown in e.frames.items()]
    figure = Figure(figsize=(_WIDTH, 1.9 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), N_FRAMES, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for row, (number, key, shown) in zip(grid, rows, strict=True):
        for axes, (step, image) in zip(row, shown, strict=False):
            show_frame(axes, image, step)
        row[0].set_ylabel(f"episode {number}\n{key}", fontsize=8)
    return figure
