"""Rows of frames: which steps of an episode to show, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def even_steps(last: int, n: int) -> list[int]:
    """At most ``n`` different steps at even distances, from 0 to ``last``."""
    return np.unique(np.linspace(0, last, n).round().astype(int)).tolist()


def show_frame(axes: Axes, image: np.ndarray, step: int) -> None:
    """Draw an image (H, W, 3) uint8 in a thin frame: pictures may be as white as the page."""
    axes.axis("on")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color="#bbbbbb", linewidth=0.8)
    axes.imshow(image)
    axes.set_title(f"step {step}", fontsize=8, pad=3)
