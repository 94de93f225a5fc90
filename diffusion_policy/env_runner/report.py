"""An evaluation to look at: a contact sheet, and one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diffusion_policy.env_runner.failures import MEANINGS, count_failures
from diffusion_policy.env_runner.starts import starts_text
from diffusion_policy.gym_util.video_writer import read_video
from diffusion_policy.spec.start import Start
from diffusion_policy.util.atomic_file import replacing
from diffusion_policy.util.html_page import Html, data_url, escaped, page, png, table, video

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
    sheet = None
    if recorded:
        sheet = png(contact_sheet(recorded, output_dir))
        with replacing(output_dir / CONTACT_SHEET_FILE) as partial:
            partial.write_bytes(sheet)
    histogram = png(max_reward_histogram(info["per_episode"]))
    with replacing(output_dir / REPORT_FILE) as partial:
        partial.write_text(_page(info, histogram, sheet, _videos(recorded, output_dir)))
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
        bins=np.linspace(0, max([1.0, *failed, *succeeded]), 41),
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


def _videos(episodes: Iterable[Mapping[str, Any]], folder: Path) -> str:
    figures = []
    for episode in episodes:
        outcome, _ = _outcome(episode)
        caption = Html(
            f'{Start.of_record(episode).label}: <b class="{outcome}">{outcome}</b>, '
            f"max reward {episode['max_reward']:.3f}, {episode['length']} steps"
        )
        figures.append(video(folder / episode["video"], episode["video"], caption))
    return "\n".join(figures)


_STYLE = """
.failures :is(th, td):is(:first-child, :last-child) { text-align: left; }
.score { display: flex; flex-wrap: wrap; gap: 3em; margin: 1em 0; }
.score b { display: block; font-size: 2.2em; line-height: 1.2; }
.score span { color: #666; }
"""


def _page(info: Mapping[str, Any], histogram: bytes, sheet: bytes | None, videos: str) -> str:
    score = info["aggregated"]
    near_misses = score["near_misses"]
    failures = count_failures(info["per_episode"])
    versions = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
    title = f"Evaluation of {info['config_name']}"
    success_low, success_high = score["success_ci95"]
    reward_low, reward_high = score["mean_max_reward_ci95"]
    pictures = "<p>No videos were recorded.</p>"
    if sheet is not None:
        pictures = (
            f'<img alt="frames of the recorded episodes" src="{data_url("image/png", sheet)}">'
            f'\n<div class="videos">\n{videos}\n</div>'
        )
    rows = ((kind, count, MEANINGS[kind]) for kind, count in failures.items())
    misses = table(
        ("start", "max reward", "steps"),
        (
            (Start.of_record(miss).label, f"{miss['max_reward']:.4f}", miss["length"])
            for miss in near_misses
        ),
    )
    body = f"""<p class="source">{escaped(info["checkpoint"])}</p>
<div class="score">
<div><b>{score["success_rate"]:.1%}</b>success rate<br>
<span>95 % interval {success_low:.1%} to {success_high:.1%}</span></div>
<div><b>{score["mean_max_reward"]:.3f}</b>mean max reward<br>
<span>95 % interval {reward_low:.3f} to {reward_high:.3f}</span></div>
<div><b>{score["n_episodes"]}</b>episodes<br>
<span>{escaped(starts_text(info))}, {score["mean_length"]:.0f} steps on average</span></div>
</div>
<h2>How near the episodes came</h2>
<img alt="histogram of max reward" src="{data_url("image/png", histogram)}">
<h2>The first successes and failures</h2>
{pictures}
<h2>Failures</h2>
{table(("", "failed episodes", "which is"), rows, name="failures")}
<h2>Near misses</h2>
<p>Episodes that failed although their reward came close to its top: {len(near_misses)}.</p>
{misses if near_misses else ""}
<h2>Run</h2>
<p class="source">{info["duration_s"]:.0f} s; {escaped(versions)}</p>"""
    return page(title, body, _STYLE)
