"""Pictures of recorded episodes: plots of vectors, rows of frames, and small videos."""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diffusion_policy.gym_util.video_writer import VideoWriter
from diffusion_policy.inspection.recording import Recording, small
from diffusion_policy.util.errors import UserError, printable
from diffusion_policy.util.frames import even_steps

VIDEO_HEIGHT = 120  # pixels
_VIDEO_FRAMES = 60
_MOST_POINTS = 400  # of a line
_MOST_LINES = 16  # of a plot
_LABEL = 18  # pixels above a frame
_GRID_WIDTH = 1600  # pixels


def lengths_figure(recording: Recording) -> Figure:
    """How long the episodes are."""
    figure = Figure(figsize=(8, 2.2), layout="constrained")
    ax = figure.subplots()
    ax.hist(recording.lengths, bins=30, color="#4a7fb5")
    ax.set(xlabel="steps of an episode", ylabel="episodes")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def episode_figure(recording: Recording, episode: int) -> Figure:
    """All vectors of an episode over time, one plot below the other."""
    keys = [key for key in recording.vectors if not key.startswith("next.")][:6]
    figure = Figure(figsize=(8, max(1, len(keys)) * 1.35), layout="constrained")
    first, end = recording.bounds(episode)
    steps = np.array(even_steps(end - first - 1, _MOST_POINTS))
    for ax, key in zip(figure.subplots(len(keys), squeeze=False)[:, 0], keys, strict=True):
        ax.plot(steps, recording.vectors[key][first + steps, :_MOST_LINES], linewidth=0.9)
        # A name may hold signs that matplotlib takes for formulas.
        ax.set_title(printable(key[:80]), fontsize=8, loc="left", pad=2, parse_math=False)
        ax.tick_params(labelsize=7)
        ax.spines[["top", "right"]].set_visible(False)
        ax.margins(x=0.01)
    return figure


def frames_side_by_side(recording: Recording, steps: np.ndarray) -> np.ndarray:
    """(n, H, W, 3) uint8: all cameras in a row, scaled to one height, even sides."""
    rows = []
    for key in recording.cameras:
        images = _images(recording, key, steps)
        width = max(2, round(images.shape[2] * VIDEO_HEIGHT / images.shape[1] / 2) * 2)
        rows.append(np.stack([small(image, VIDEO_HEIGHT, width) for image in images]))
    return np.concatenate(rows, axis=2).round().astype(np.uint8)


def _images(recording: Recording, key: str, steps: np.ndarray) -> np.ndarray:
    """(n, H, W, 3); grey where they cannot be read, which is a finding of its own."""
    try:
        return recording.images(key, steps)
    except UserError:
        return np.full((len(steps), *recording.fields[key].shape[1:], 3), 128, np.uint8)


def episode_video(recording: Recording, episode: int) -> bytes:
    """A small mp4 of all cameras; long episodes are shown faster."""
    first, end = recording.bounds(episode)
    steps = first + np.array(even_steps(end - first - 1, _VIDEO_FRAMES))
    fps = recording.store.fps or 10
    rate = min(30, max(1, round(fps * len(steps) / (end - first))))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "episode.mp4"
        with VideoWriter(path, rate, crf=30) as writer:
            for frame in frames_side_by_side(recording, steps):
                writer.write(frame)
        return path.read_bytes()


def first_frames(recording: Recording, episodes: list[int]) -> bytes:
    """First frames of all cameras of these episodes, in a grid, as a JPEG file."""
    first = np.array([recording.bounds(episode)[0] for episode in episodes])
    cells = [
        cv2.copyMakeBorder(frame, _LABEL, 4, 0, 8, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        for frame in frames_side_by_side(recording, first)
    ]
    for cell, episode in zip(cells, episodes, strict=True):
        text = f"episode {episode}"
        cv2.putText(cell, text, (2, _LABEL - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (60, 60, 60), 1)
    columns = max(1, min(_GRID_WIDTH // cells[0].shape[1], len(cells)))
    blank = np.full_like(cells[0], 255)
    cells += [blank] * (-len(cells) % columns)
    rows = [np.concatenate(cells[i : i + columns], 1) for i in range(0, len(cells), columns)]
    grid = cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", grid, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
