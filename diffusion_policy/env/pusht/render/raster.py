"""Which pixels a shape covers, by the rules of pygame 2.6, which draws the benchmark today.

Libraries, and their versions, round differently. With the rules written down here, the images do
not depend on what is installed. (The demonstrations were drawn with pygame 2.1, which differs in
one rule; see :func:`quad_spans`.)

A shape is given in whole pixels (x, y), int64. The result is spans: arrays (shapes, S, 3) of row,
first and last column of runs of pixels. Spans may leave the canvas. A shape that needs fewer than S
has empty spans (last < first).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

Layer = tuple[np.ndarray, np.uint32]
"""Spans (..., 3) and the value to paint them with."""


def quad_spans(quads: np.ndarray) -> np.ndarray:
    """Spans of convex quadrilaterals (P, 4, 2); none may be flat.

    A row is filled between the two edges that cross it; both crossings are rounded down. (Up to
    pygame 2.5 they were rounded towards the upper end of the edge, so the T's outline in the
    demonstrations' images is a pixel off in places.)
    """
    # Doubles hold these small whole numbers, and the floors of their quotients, exactly.
    corners = quads.astype(np.float64)
    ends_x, ends_y = corners[:, :, 0, None], corners[:, :, 1, None]
    starts_x, starts_y = ends_x[:, _PREVIOUS], ends_y[:, _PREVIOUS]
    upper_y, lower_y = np.minimum(starts_y, ends_y), np.maximum(starts_y, ends_y)
    top, bottom = upper_y.min(axis=1, keepdims=True), lower_y.max(axis=1, keepdims=True)
    # An edge ends one row above its lower corner, where the next edge begins; not on the last row.
    last = np.where(lower_y == bottom, lower_y, lower_y - 1)
    rise = ends_y - starts_y
    level = rise == 0  # a level edge crosses no row
    rise[level], last[level] = 1, -math.inf

    rows = top + np.arange(int((bottom - top).max()) + 1)  # (P, 1, S)
    crossing = starts_x + np.floor((rows - starts_y) * (ends_x - starts_x) / rise)
    crossed = (rows >= upper_y) & (rows <= last)  # (P, 4, S)
    left = np.where(crossed, crossing, _FAR).min(axis=1)
    right = np.where(crossed, crossing, -_FAR).max(axis=1)
    return np.stack([rows[:, 0], left, right], axis=-1).astype(np.int64)


_PREVIOUS = np.array([3, 0, 1, 2])
_FAR = 2.0**40
"""Beyond any canvas."""


def line_spans(starts: np.ndarray, ends: np.ndarray, thickness: int) -> np.ndarray:
    """Spans of lines from ``starts`` to ``ends`` (L, 2); ``thickness`` is an even number of pixels.

    Bresenham's line, repeated sideways: along x for steep lines, along y for flat ones.
    """
    delta = ends - starts
    extent = np.abs(delta)
    length, rise = extent.max(axis=1, keepdims=True), extent.min(axis=1, keepdims=True)
    step = np.minimum(np.arange(length.max() + 1), length)  # (L, S)
    # Sideways steps so far: the smallest number that keeps the sign of Bresenham's error.
    aside = np.ceil((step * rise - length // 2) / length).clip(min=0).astype(np.int64)
    steep = extent[:, :1] <= extent[:, 1:]
    sign = np.sign(delta)
    x = starts[:, :1] + sign[:, :1] * np.where(steep, aside, step)
    y = starts[:, 1:] + sign[:, 1:] * np.where(steep, step, aside)
    offset = np.arange(1 - thickness // 2, thickness // 2 + 1)[:, None]
    wide = steep[..., None]
    x, y = x[:, None] + offset * wide, y[:, None] + offset * ~wide  # (L, thickness, S)
    return np.stack([y, x, x], axis=-1).reshape(len(starts), -1, 3)


def disk_spans(centers: np.ndarray, radius: int) -> np.ndarray:
    """Spans of filled circles of one radius around ``centers`` (N, 2)."""
    return centers[:, None, [1, 0, 0]] + _disk(radius)


@cache
def _disk(radius: int) -> np.ndarray:
    """Spans of the disk around (0, 0): the midpoint circle algorithm, mirrored to all octants."""
    spans = []
    x, y, error = 0, radius, 1 - radius
    while x < y:
        if error >= 0:
            y -= 1
            error -= 2 * y
        x += 1
        error += 2 * x + 1
        for row, half in [(x, y)] if error < 0 else [(x, y), (y, x)]:
            spans += [(row - 1, -half, half - 1), (-row, -half, half - 1)]
    return np.array(spans)


def fat_segment_spans(starts: np.ndarray, ends: np.ndarray, radius: int) -> np.ndarray:
    """Spans of segments from ``starts`` to ``ends`` (L, 2) with round ends, as pymunk draws them.

    Each is a line, a quad around it and a disk at both ends. The quad's offset ignores the signs of
    the direction, so the quad of a segment that runs down to the right is a sliver.
    """
    aside = np.abs(ends - starts)[:, ::-1]
    share = radius / np.hypot(aside[:, :1], aside[:, 1:])
    offset = np.rint(aside * share).astype(np.int64)
    quads = np.stack([starts - offset, starts + offset, ends + offset, ends - offset], axis=1)
    shapes = [
        line_spans(starts, ends, 2 * radius),
        quad_spans(quads),
        disk_spans(starts, radius),
        disk_spans(ends, radius),
    ]
    return np.concatenate(shapes, axis=1)


def fat_segment_pixels(displacements: np.ndarray, radius: int) -> list[np.ndarray]:
    """Pixels of :func:`fat_segment_spans` for segments from (0, 0) to ``displacements`` (L, 2).

    Returns:
        The pixels (n, 2) x, y of each segment, without repetitions.
    """
    # Draw all segments on one canvas, one below the other.
    first = radius - np.minimum(displacements, 0)
    width, height = (first + np.maximum(displacements, 0)).max(axis=0) + radius + 1
    starts = first + np.outer(np.arange(len(displacements)) * height, [0, 1])
    canvas = np.zeros((len(displacements), height, width), np.uint32)
    spans = fat_segment_spans(starts, starts + displacements, radius)
    paint(canvas.reshape(-1, width), [(spans, np.uint32(1))])
    segment, y, x = canvas.nonzero()
    pixels = np.stack([x, y], axis=1) - first[segment]
    return np.split(pixels, np.searchsorted(segment, np.arange(1, len(displacements))))


def paint(canvas: np.ndarray, layers: Sequence[Layer]) -> None:
    """Paint layers onto a contiguous canvas (H, W), later ones over earlier ones."""
    height, width = canvas.shape
    flat = [spans.reshape(-1, 3) for spans, _ in layers]
    values = np.repeat([value for _, value in layers], [len(spans) for spans in flat])
    row, left, right = np.concatenate(flat).T
    left, right = np.maximum(left, 0), np.minimum(right, width - 1)
    visible = (row >= 0) & (row < height) & (left <= right)
    row, left, values = row[visible], left[visible], values[visible]
    length = right[visible] - left + 1
    # Flat index of every pixel of every span: the first of the span, then counting up.
    first = row * width + left - (np.cumsum(length) - length)
    # NumPy keeps the last value of a pixel that occurs more than once.
    canvas.reshape(-1)[np.repeat(first, length) + np.arange(length.sum())] = np.repeat(
        values, length
    )


def fine_line(
    pixels: np.ndarray,
    start: tuple[int, int],
    end: tuple[int, int],
    color: tuple[int, ...],
    origin: tuple[int, int] = (0, 0),
) -> None:
    """Blend an antialiased line into ``pixels`` (H, W, C) uint8; parts outside are not drawn.

    Points are x, y on a canvas; ``pixels`` starts at its point ``origin``.

    This is Wu's algorithm in single precision: each step along the line lights the two pixels
    beside it, in proportion to their nearness. Lines of five pixels or more can differ from
    pygame's by one or two grey levels, and lines that leave the canvas by one or two pixels there.
    """
    (x, y), (last, last_y) = start, end
    steep = abs(last - x) < abs(last_y - y)
    if steep:
        x, y, last, last_y = y, x, last_y, last
    if last < x:
        x, y, last, last_y = last, last_y, x, y
    single = np.float32
    slope = single(last_y - y) / single(max(last - x, 1))
    height, width = pixels.shape[:2]
    rows, columns, weights = [], [], []
    exact = single(y)
    for along in range(x, last + 1):
        if along == last:
            exact = single(last_y)
        below = math.floor(exact)
        share = single(exact - below)
        for across, weight in ((below, 1 - share), (below + 1, share)):
            column, row = (across, along) if steep else (along, across)
            column, row = column - origin[0], row - origin[1]
            if weight > 0 and 0 <= row < height and 0 <= column < width:
                rows.append(row)
                columns.append(column)
                weights.append(weight)
        exact += slope
    shares = np.array(weights, dtype=single)[:, None]
    behind = pixels[rows, columns].astype(single)
    pixels[rows, columns] = shares * np.array(color, dtype=single) + (1 - shares) * behind
