"""An evaluation to look at: a contact sheet, and one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffusion_policy.env_runner.failures import MEANINGS, count_failures
from diffusion_policy.env_runner.starts import starts_text
from diffusion_policy.gym_util.video_writer import read_video
from diffusion_policy.spec.start import Start
from diffusion_policy.util.atomic_file import replacing
from diffusion_policy.util.html_page import data_url, png, render, video_url

INFO_FILE = "eval_info.json"
CONTACT_SHEET_FILE = "contact_sheet.png"
REPORT_FILE = "report.html"
FRAMES_PER_EPISODE = 6

_SUCCESS_COLOUR, _FAILURE_COLOUR = "#2a7f4f", "#b5483a"


def write_report(info: Mapping[str, Any], output_dir: Path) -> Path:
    """Write the contact sheet (if there are videos) and the page; returns the page's path.

    Args:
        info: what ``eval_info.json`` holds.
        output_dir: its folder; videos are relative to it.
    """
    recorded = [episode for episode in info["per_episode"] if episode["video"]]
    sheet = b""
    if recorded:
        sheet = png(contact_sheet(recorded, output_dir))
        with replacing(output_dir / CONTACT_SHEET_FILE) as partial:
            partial.write_bytes(sheet)
    failures = count_failures(info["per_episode"])
    page = render(
        "env_runner/report.html",
        title=f"Evaluation of {info['config_name']}",
        info=info,
        score=info["aggregated"],
        starts=starts_text(info),
        histogram=data_url("image/png", png(max_reward_histogram(info["per_episode"]))),
        sheet=sheet and data_url("image/png", sheet),
        videos=[
            {
                **episode,
                "start": Start.of_record(episode).label,
                "url": video_url(output_dir / episode["video"], episode["video"]),
            }
            for episode in recorded
        ],
        near_misses=[
            {**miss, "start": Start.of_record(miss).label}
            for miss in info["aggregated"]["near_misses"]
        ],
        failures=[(kind, count, MEANINGS[kind]) for kind, count in failures.items()],
    )
    with replacing(output_dir / REPORT_FILE) as partial:
        partial.write_text(page)
    return output_dir / REPORT_FILE


def contact_sheet(episodes: Sequence[Mapping[str, Any]], folder: Path) -> Figure:
    """A row per recorded episode: how it went, then frames at even distances, first to last."""
    rows, columns = len(episodes), FRAMES_PER_EPISODE
    figure = Figure(figsize=(1.6 * (columns + 1), 1.75 * rows), layout="constrained")
    grid = figure.subplots(rows, columns + 1, squeeze=False)
    for axes, episode in zip(grid, episodes, strict=True):
        # Frame k of a video shows the world after k steps.
        steps = np.linspace(0, episode["length"], columns).round().astype(int).tolist()
        frames = read_video(folder / episode["video"], steps)
        for ax in axes:
            ax.axis("off")
        outcome, colour = _outcome(episode)
        axes[0].text(0, 0.8, Start.of_record(episode).label, fontsize=11)
        axes[0].text(0, 0.55, outcome, fontsize=11, color=colour, weight="bold")
        axes[0].text(0, 0.3, f"max reward {episode['max_reward']:.3f}", fontsize=9)
        for ax, step, frame in zip(axes[1:], steps, frames, strict=True):
            ax.imshow(frame)
            ax.set_title(f"step {step}", fontsize=8, pad=2)
    return figure


def max_reward_histogram(episodes: Sequence[Mapping[str, Any]]) -> Figure:
    """How near the episodes came, successes on top of failures."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    ax = figure.subplots()
    failed, succeeded = (
        [episode["max_reward"] for episode in episodes if episode["success"] is outcome]
        for outcome in (False, True)
    )
    ax.hist(
        [failed, succeeded],
        bins=np.linspace(0, max([1.0, *failed, *succeeded]), 41).tolist(),
        stacked=True,
        color=[_FAILURE_COLOUR, _SUCCESS_COLOUR],
        label=[f"failure ({len(failed)})", f"success ({len(succeeded)})"],
    )
    ax.set_xlabel("max reward of the episode")
    ax.set_ylabel("episodes")
    ax.legend(loc="upper left", frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def _outcome(episode: Mapping[str, Any]) -> tuple[str, str]:
    return ("success", _SUCCESS_COLOUR) if episode["success"] else ("failure", _FAILURE_COLOUR)
