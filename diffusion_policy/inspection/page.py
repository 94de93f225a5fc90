"""A data set to look at: one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_policy.inspection.figures import (
    episode_figure,
    episode_video,
    first_frames,
    lengths_figure,
)
from diffusion_policy.inspection.recording import Finding, Recording
from diffusion_policy.inspection.summary import facts, feature_rows
from diffusion_policy.util.atomic_file import replacing
from diffusion_policy.util.errors import writing
from diffusion_policy.util.frames import even_steps
from diffusion_policy.util.html_page import data_url, render, svg

SHOWN = 12
"""Episodes with plots and a video."""
_FIRST_FRAMES = 100  # episodes whose first frames are shown


def write_page(
    path: Path, recording: Recording, findings: Sequence[Finding], source: str, shown: int = SHOWN
) -> Path:
    """Write the page of a data set; returns its path.

    Args:
        source: path or name of the data set.
        shown: how many episodes get plots and a video: those that something was found in first.

    Raises:
        UserError: the page cannot be written.
    """
    chosen = chosen_episodes(recording, findings, shown)
    frames = None
    if recording.cameras:
        some = even_steps(recording.n_episodes - 1, _FIRST_FRAMES)
        frames = data_url("image/jpeg", first_frames(recording, some))
    page = render(
        "inspection/page.html",
        title=f"Data set {Path(source).name or source}",
        source=source,
        facts_=facts(recording),
        features=feature_rows(recording),
        findings=findings,
        lengths=data_url("image/svg+xml", svg(lengths_figure(recording))),
        cameras=recording.cameras,
        frames=frames,
        n_shown_frames=min(_FIRST_FRAMES, recording.n_episodes),
        episodes=[_episode(recording, findings, episode) for episode in chosen],
    )
    with writing(path, atomic=True), replacing(path) as partial:
        partial.write_text(page)
    return path


def chosen_episodes(recording: Recording, findings: Sequence[Finding], n: int) -> list[int]:
    """Episodes to show: the first of each finding, filled up evenly, in their order."""
    suspicious = [finding.episodes[0] for finding in findings if finding.episodes]
    spread = even_steps(recording.n_episodes - 1, n)
    return sorted([*dict.fromkeys([*suspicious, *spread])][:n])


def _episode(recording: Recording, findings: Sequence[Finding], episode: int) -> dict[str, Any]:
    info = recording.store.episode(episode)
    video = None
    if recording.cameras:
        video = data_url("video/mp4", episode_video(recording, episode))
    return {
        "number": episode,
        "length": int(recording.lengths[episode]),
        "task": info.task,
        "findings": sorted({f.check for f in findings if episode in f.episodes}),
        "plot": data_url("image/svg+xml", svg(episode_figure(recording, episode))),
        "video": video,
    }
