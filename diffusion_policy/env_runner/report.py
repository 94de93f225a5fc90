"""An evaluation to look at: a contact sheet, and one HTML page that needs no other file."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diffusion_policy.env_runner.episode import outcome
from diffusion_policy.env_runner.outcomes import NEAR_MISS, Outcomes
from diffusion_policy.env_runner.starts import starts_text
from diffusion_policy.gym_util.video_writer import read_video
from diffusion_policy.spec.start import Start
from diffusion_policy.util.atomic_file import replacing
from diffusion_policy.util.frames import even_steps, show_frame
from diffusion_policy.util.html_page import data_url, png, render, video_url

INFO_FILE = "eval_info.json"
CONTACT_SHEET_FILE = "contact_sheet.png"
REPORT_FILE = "report.html"
FRAMES_PER_EPISODE = 6

_OUTCOMES = {
    False: (outcome(False), "#b5483a"),
    True: (outcome(True), "#2a7f4f"),
    None: (outcome(None), "#666666"),
}
"""Word and colour of an episode's ``success``; None is of an environment that does not tell it."""
_BINS = 40  # of the histogram
_LABEL_WIDTH = 20  # characters of the first column of the contact sheet


def write_report(info: Mapping[str, Any], output_dir: Path) -> Path:
    """Write the contact sheet (if there are videos) and the page; returns the page's path.

    Args:
        info: what ``eval_info.json`` holds.
        output_dir: its folder; videos are relative to it.
    """
    episodes = info["per_episode"]
    recorded = [episode for episode in episodes if episode["video"]]
    sheet = b""
    if recorded:
        sheet = png(contact_sheet(recorded, output_dir))
        with replacing(output_dir / CONTACT_SHEET_FILE) as partial:
            partial.write_bytes(sheet)
    outcomes = Outcomes.parse(info.get("outcomes"))
    counts = outcomes.count(episodes)
    histogram = max_reward_histogram(episodes, outcomes.reward_range)
    page = render(
        "env_runner/report.html",
        title=f"Evaluation of {info['config_name']}",
        checkpoint=info["checkpoint"],
        score=info["aggregated"],
        starts=starts_text(info),
        histogram=data_url("image/png", png(histogram)),
        sheet=sheet and data_url("image/png", sheet),
        videos=[
            {
                **episode,
                "start": Start.of_record(episode).label,
                "outcome": _OUTCOMES[episode["success"]][0],
                "url": video_url(output_dir / episode["video"], episode["video"]),
            }
            for episode in recorded
        ],
        failures=[
            (kind.name, counts[kind.name], kind.meaning)
            for kind in outcomes.kinds
            if kind.name in counts
        ],
        near_misses=[
            {**miss, "start": Start.of_record(miss).label}
            for miss in outcomes.near_misses(episodes)
        ],
        has_near_misses=NEAR_MISS in counts,
        origin=_origin(info),
    )
    with replacing(output_dir / REPORT_FILE) as partial:
        partial.write_text(page)
    return output_dir / REPORT_FILE


def _origin(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was evaluated, and where; early records lack some of it."""
    found = {
        "task": info.get("task"),
        "checkpoint": _checkpoint(info),
        "changed settings": ", ".join(info.get("overrides", [])),
        "command": info.get("command"),
        "commit": info.get("commit"),
        "device": _device(info),
        "machine": info.get("machine"),
        "versions": ", ".join(f"{name} {version}" for name, version in info["versions"].items()),
        "duration": f"{info['duration_s']:.0f} s",
    }
    return [(name, value) for name, value in found.items() if value]


def _checkpoint(info: Mapping[str, Any]) -> str:
    steps = info.get("global_step")
    return info["checkpoint"] + ("" if steps is None else f", after {steps:,} steps")


def _device(info: Mapping[str, Any]) -> str | None:
    device, precision = info.get("device"), info.get("precision")
    return device and f"{device}, matrix products in {precision}"


def contact_sheet(episodes: Sequence[Mapping[str, Any]], folder: Path) -> Figure:
    """A row per recorded episode: how it went, then frames at even distances, first to last."""
    rows, columns = len(episodes), FRAMES_PER_EPISODE
    figure = Figure(figsize=(1.6 * (columns + 1), 1.75 * rows), layout="constrained")
    grid = figure.subplots(rows, columns + 1, squeeze=False)
    for axes, episode in zip(grid, episodes, strict=True):
        for ax in axes:
            ax.axis("off")
        _describe(axes[0], episode)
        steps = even_steps(episode["length"], columns)  # frame k shows the world after k steps
        frames = read_video(folder / episode["video"], steps)
        for ax, step, frame in zip(axes[1:], steps, frames, strict=False):
            show_frame(ax, frame, step)
    return figure


def _describe(ax: Axes, episode: Mapping[str, Any]) -> None:
    """Write start, outcome and reward, as far as they fit into the first column."""
    word, colour = _OUTCOMES[episode["success"]]
    label = "\n".join(textwrap.wrap(Start.of_record(episode).label, _LABEL_WIDTH, max_lines=2))
    style: dict[str, Any] = dict(verticalalignment="top", transform=ax.transAxes)
    ax.text(0, 0.95, label, fontsize=10, **style)
    ax.text(0, 0.55, word, fontsize=11, color=colour, weight="bold", **style)
    ax.text(0, 0.25, f"max reward {episode['max_reward']:.3f}", fontsize=9, **style)


def max_reward_histogram(
    episodes: Sequence[Mapping[str, Any]], reward_range: tuple[float, float] | None = None
) -> Figure:
    """How near the episodes came: outcomes stacked on each other.

    Args:
        reward_range: least and largest reward of the task; None shows what there is.
    """
    figure = Figure(figsize=(7, 3), layout="constrained")
    ax = figure.subplots()
    found = {episode["success"] for episode in episodes}
    shown = {False, True} | found if found != {None} else found
    groups = {
        _OUTCOMES[success]: [e["max_reward"] for e in episodes if e["success"] is success]
        for success in _OUTCOMES
        if success in shown
    }
    ends = [*(reward_range or ()), *(reward for group in groups.values() for reward in group)]
    ax.hist(
        list(groups.values()),
        bins=np.histogram_bin_edges(ends, bins=_BINS).tolist(),
        stacked=True,
        color=[colour for _, colour in groups],
        label=[f"{name} ({len(group)})" for (name, _), group in groups.items()],
    )
    ax.set_xlabel("max reward of the episode")
    ax.set_ylabel("episodes")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    # Above the axes, where no bar is.
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(groups), frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return figure
