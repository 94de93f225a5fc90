"""Pictures of PushT, pixel for pixel those of the benchmark.

The benchmark draws the goal and then pymunk's debug view of the world on a 512 x 512 canvas.
That view rounds coordinates first, thickens outlines in a way of its own and marks contacts; all
of it is repeated here, so that a policy sees what it would see there.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from diffusion_policy.env.pusht.contacts import Contact, contacts
from diffusion_policy.env.pusht.observations import IMAGE_SIZE, VERTICES, block_to_world
from diffusion_policy.env.pusht.raster import (
    disk_spans,
    fat_segment_spans,
    fine_line,
    paint,
    quad_spans,
)
from diffusion_policy.env.pusht.simulation import (
    AGENT_RADIUS,
    GOAL_POSE,
    WALL_RADIUS,
    WALLS,
    WORLD_SIZE,
)

Color = tuple[int, int, int]

BACKGROUND: Color = (255, 255, 255)
GOAL_COLOR: Color = (144, 238, 144)  # LightGreen
BLOCK_COLOR: Color = (119, 136, 153)  # LightSlateGray
AGENT_COLOR: Color = (65, 105, 225)  # RoyalBlue
WALL_COLOR: Color = (211, 211, 211)  # LightGray
CONTACT_COLOR: Color = (231, 76, 60)  # pymunk's default
CROSS_COLOR: Color = (255, 0, 0)
OUTLINE_RADIUS = 2
"""Half the width of the block's outline, in pixels."""
AGENT_RIM = 4
"""Width of the agent's darker rim, in pixels."""
CONTACT_REACH = 2
"""How far a contact's mark reaches beyond the touching points, in pixels."""
CROSS_SIZE, CROSS_THICKNESS = 8 / 96, 1 / 96
"""The cross over the last action, as shares of the frame's side."""


def observation_image(state: np.ndarray) -> np.ndarray:
    """The image observation of a state (5,): (3, 96, 96) uint8 RGB."""
    return np.ascontiguousarray(draw(state, IMAGE_SIZE).transpose(2, 0, 1))


def draw(state: np.ndarray, size: int, action: np.ndarray | None = None) -> np.ndarray:
    """A frame of the world.

    Args:
        state: (5,) agent x, y, block x, y in world units, block angle in radians.
        size: side of the frame in pixels; the 512 x 512 drawing is resized to it.
        action: (2,) target in world units to mark with a red cross; None marks nothing.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    frame = cv2.resize(_draw_world(np.asarray(state, dtype=np.float64)), (size, size))
    frame = cv2.cvtColor(frame, cv2.COLOR_RGBA2RGB)
    if action is not None:
        x, y = (int(value * size / WORLD_SIZE) for value in action)
        cv2.drawMarker(
            frame,
            (x, y),
            CROSS_COLOR,
            cv2.MARKER_CROSS,
            markerSize=max(1, int(CROSS_SIZE * size)),
            thickness=max(1, int(CROSS_THICKNESS * size)),
        )
    return frame


def _draw_world(state: np.ndarray) -> np.ndarray:
    """(512, 512, 4) uint8 picture of a state: RGB and an unused byte."""
    background, free = _background()
    canvas = background.copy()
    corners = _corners(state)
    starts, ends = corners.reshape(8, 2), corners[:, [1, 2, 3, 0]].reshape(8, 2)
    bar, stem = quad_spans(corners)
    bar_outline, stem_outline = fat_segment_spans(starts, ends, OUTLINE_RADIUS).reshape(2, -1, 3)
    agent = np.rint(state[None, :2]).astype(np.int64)
    layers = [
        (bar, _pack(_light(BLOCK_COLOR))),
        (bar_outline, _pack(BLOCK_COLOR)),
        (stem, _pack(_light(BLOCK_COLOR))),
        (stem_outline, _pack(BLOCK_COLOR)),
        (disk_spans(agent, AGENT_RADIUS), _pack(AGENT_COLOR)),
        (disk_spans(agent, AGENT_RADIUS - AGENT_RIM), _pack(_light(AGENT_COLOR))),
    ]
    paint(canvas, layers, free)
    pixels = canvas.view(np.uint8).reshape(WORLD_SIZE, WORLD_SIZE, 4)
    for contact in contacts(state):
        _draw_contact(pixels[..., :3], contact)
    return pixels


@cache
def _background() -> tuple[np.ndarray, np.ndarray]:
    """The canvas without block and agent, and where they may cover it.

    The benchmark draws the walls after block and agent, so that nothing covers the walls.

    Returns:
        (512, 512) uint32 packed pixels and (512, 512) bool.
    """
    canvas = np.full((WORLD_SIZE, WORLD_SIZE), _pack(BACKGROUND))
    goal = quad_spans(_corners(np.array([0, 0, *GOAL_POSE])))
    starts, ends = np.array(WALLS).swapaxes(0, 1)
    walls = fat_segment_spans(starts, ends, WALL_RADIUS)
    paint(canvas, [(goal, _pack(GOAL_COLOR)), (walls, _pack(WALL_COLOR))])
    return canvas, canvas != _pack(WALL_COLOR)


def _corners(state: np.ndarray) -> np.ndarray:
    """(2, 4, 2) int64: the corners of bar and stem, in pixels."""
    return np.rint(block_to_world(VERTICES, state)).astype(np.int64).reshape(2, 4, 2)


def _draw_contact(pixels: np.ndarray, contact: Contact) -> None:
    outwards = contact.normal * CONTACT_REACH
    start, end = contact.on_other + outwards, contact.on_block - outwards
    fine_line(pixels, _rounded(start), _rounded(end), CONTACT_COLOR)


def _rounded(point: tuple[float, float]) -> tuple[int, int]:
    return round(point[0]), round(point[1])


@cache
def _light(color: Color) -> Color:
    red, green, blue = (min(round(1.2 * channel), 255) for channel in color)
    return red, green, blue


@cache
def _pack(color: Color) -> np.uint32:
    """A pixel as one number whose bytes in memory are red, green, blue, 0."""
    return np.array([*color, 0], np.uint8).view(np.uint32)[0]
