"""Goal, walls, block and agent of PushT, pixel for pixel as the benchmark draws them.

Pixels are packed: a uint32 whose bytes in memory are red, green, blue, 0.
"""

from __future__ import annotations

import itertools
import math
from functools import cache, lru_cache

import cv2
import numpy as np

from diffusion_policy.env.pusht.block import VERTICES, block_to_world
from diffusion_policy.env.pusht.render.raster import (
    disk_spans,
    fat_segment_pixels,
    fat_segment_spans,
    paint,
    quad_spans,
)
from diffusion_policy.env.pusht.render.sheet import TILE, Box, Sheet
from diffusion_policy.env.pusht.simulation import (
    AGENT_RADIUS,
    GOAL_POSE,
    WALL_RADIUS,
    WALLS,
    WORLD_SIZE,
)

Color = tuple[int, int, int]
Pixel = tuple[int, int]
"""x, y."""

BACKGROUND: Color = (255, 255, 255)
GOAL_COLOR: Color = (144, 238, 144)  # LightGreen
BLOCK_COLOR: Color = (119, 136, 153)  # LightSlateGray
AGENT_COLOR: Color = (65, 105, 225)  # RoyalBlue
WALL_COLOR: Color = (211, 211, 211)  # LightGray
OUTLINE_RADIUS = 2
"""Half the width of the block's outline, in pixels."""
AGENT_RIM = 4
"""Width of the agent's darker rim, in pixels."""

_REACH = max(math.dist(*pair) for pair in itertools.combinations(VERTICES.tolist(), 2))
_BLOCK_SIDE = (math.ceil(_REACH) + 2 + 2 * OUTLINE_RADIUS + TILE - 1) // TILE * TILE + TILE
"""Side of a square of whole tiles that holds the block at any angle: its length, 1 pixel for
rounding, 1 because both ends count, the outline, and up to a tile less 1 pixel before it."""


@cache
def background() -> np.ndarray:
    """(512, 512) packed: the canvas without block and agent."""
    canvas = np.full((WORLD_SIZE, WORLD_SIZE), pack(BACKGROUND))
    goal = quad_spans(np.array(corners(np.array([0, 0, *GOAL_POSE]))).reshape(2, 4, 2))
    starts, ends = np.array(WALLS).swapaxes(0, 1)
    outlines = fat_segment_spans(starts, ends, WALL_RADIUS)
    paint(canvas, [(goal, pack(GOAL_COLOR)), (outlines, pack(WALL_COLOR))])
    return _finished(canvas)


@cache
def walls() -> np.ndarray:
    """(512, 512) bool: the pixels of the walls, which are drawn last and cover everything."""
    return _finished(background() == pack(WALL_COLOR))


@cache
def agent() -> np.ndarray:
    """(30, 30) packed, the agent's centre at [15, 15]; 0 outside the agent."""
    stamp = np.zeros((2 * AGENT_RADIUS, 2 * AGENT_RADIUS), np.uint32)
    centre = np.array([[AGENT_RADIUS, AGENT_RADIUS]])
    rim, inside = (disk_spans(centre, AGENT_RADIUS - width) for width in (0, AGENT_RIM))
    paint(stamp, [(rim, pack(AGENT_COLOR)), (inside, pack(light(AGENT_COLOR)))])
    return _finished(stamp)


def agent_box(x: int, y: int) -> Box:
    """The box of the canvas that :func:`agent` fills for an agent at this pixel."""
    return Box(x - AGENT_RADIUS, y - AGENT_RADIUS, x + AGENT_RADIUS, y + AGENT_RADIUS)


def corners(state: np.ndarray) -> tuple[Pixel, ...]:
    """The pixels of the block's 8 corners in a state (5,): of the bar, then of the stem."""
    rounded = np.rint(block_to_world(VERTICES, state)).astype(np.int64)
    return tuple(map(tuple, rounded.tolist()))


@lru_cache(maxsize=64)  # a block often rests while the agent moves; a worker has many blocks
def block(corners: tuple[Pixel, ...]) -> Sheet:
    """The block over the background, before the walls are drawn over it."""
    box = Box.around(corners, OUTLINE_RADIUS)
    left, top = box[:2]
    sheet = Sheet.cut(background(), Box(left, top, left + _BLOCK_SIDE, top + _BLOCK_SIDE))
    pixels = sheet.pixels.reshape(-1)
    local = [(x - left, y - top) for x, y in corners]
    fill = (*light(BLOCK_COLOR), 0)
    for part in (local[:4], local[4:]):
        # The outline covers the border of the filling, so its rounding does not show.
        cv2.fillConvexPoly(channels(sheet.pixels), np.array(part, np.int32), fill)
        for (x, y), outline in zip(part, _outline(part), strict=True):
            # Indexing converts smaller types to intp once more.
            pixels[np.add(outline, x + _BLOCK_SIDE * y, dtype=np.intp)] = pack(BLOCK_COLOR)
    return Sheet(box, _finished(sheet.part(box).copy()))


def channels(pixels: np.ndarray) -> np.ndarray:
    """Packed pixels (H, W) as (H, W, 4) uint8 in the same memory."""
    return pixels.view(np.uint8).reshape(*pixels.shape, 4)


def _outline(part: list[Pixel]) -> list[np.ndarray]:
    """Pixels of the edge from each corner to the next, as flat offsets in the sheet."""
    following = part[1:] + part[:1]
    ways = [(bx - ax, by - ay) for (ax, ay), (bx, by) in zip(part, following, strict=True)]
    if new := [way for way in dict.fromkeys(ways) if way not in _EDGES]:
        for way, pixels in zip(new, fat_segment_pixels(np.array(new), OUTLINE_RADIUS), strict=True):
            _EDGES[way] = (pixels @ [1, _BLOCK_SIDE]).astype(np.int32)
    return [_EDGES[way] for way in ways]


_EDGES: dict[Pixel, np.ndarray] = {}
"""Pixels of an edge by its displacement: a few thousand edges of 2 KB, each drawn once."""


def _finished(pixels: np.ndarray) -> np.ndarray:
    """The same array, made read-only."""
    pixels.flags.writeable = False
    return pixels


@cache
def light(color: Color) -> Color:
    """The colour inside an outline of this colour."""
    red, green, blue = (min(round(1.2 * channel), 255) for channel in color)
    return red, green, blue


@cache
def pack(color: Color) -> np.uint32:
    """A pixel of this colour."""
    return np.array([*color, 0], np.uint8).view(np.uint32)[0]
