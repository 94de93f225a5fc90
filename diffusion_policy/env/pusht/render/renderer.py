"""Images of PushT, equal to the benchmark's in every pixel.

The benchmark draws the goal and then pymunk's debug view of the world on a 512 x 512 canvas. That
view rounds coordinates first, thickens outlines in its own way and marks contacts. All of it is
repeated here, so a policy sees the images that it would see there.
"""

from __future__ import annotations

import itertools
from functools import cache

import cv2
import numpy as np

from diffusion_policy.env.pusht.contacts import Contact, contacts
from diffusion_policy.env.pusht.render.figures import (
    Color,
    Pixel,
    agent,
    agent_box,
    background,
    block,
    channels,
    corners,
    walls,
)
from diffusion_policy.env.pusht.render.raster import fine_line
from diffusion_policy.env.pusht.render.sheet import (
    CANVAS,
    IMAGE_SIZE,
    TILE,
    TILE_IN_IMAGE,
    Box,
    Sheet,
)
from diffusion_policy.env.pusht.simulation import AGENT_RADIUS, WORLD_SIZE

CONTACT_COLOR: Color = (231, 76, 60)  # pymunk's default
CROSS_COLOR: Color = (255, 0, 0)
CONTACT_REACH = 2
"""How far a contact's mark reaches beyond the touching points, in pixels."""
CROSS_SIZE, CROSS_THICKNESS = 8 / 96, 1 / 96
"""The cross over the last action, as shares of the frame's side."""


def observation_image(state: np.ndarray) -> np.ndarray:
    """The image observation of a state (5,): (3, 96, 96) uint8 RGB.

    It equals ``draw(state, 96)``, but draws and resizes only what differs from the background. That
    is exact, because the pixels that a tile becomes depend on no pixel outside the tile.
    """
    image = _background_image().copy()
    for box, pixels in _changes(np.asarray(state, dtype=np.float64)):
        if pixels.size:
            place = Box(*(side // TILE * TILE_IN_IMAGE for side in box))
            image[:, *place.seen_from(CANVAS)] = _resized(pixels, *place.size)
    return image


def draw(state: np.ndarray, size: int, action: np.ndarray | None = None) -> np.ndarray:
    """A frame of the world.

    Args:
        state: (5,) agent x, y, block x, y in world units, block angle in radians.
        size: side of the frame in pixels; the 512 x 512 drawing is resized to it.
        action: (2,) target in world units, marked with a red cross; None: no cross.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    canvas = background().copy()
    for box, pixels in _changes(np.asarray(state, dtype=np.float64)):
        canvas[box.seen_from(CANVAS)] = pixels
    frame = cv2.cvtColor(cv2.resize(channels(canvas), (size, size)), cv2.COLOR_RGBA2RGB)
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


def _changes(state: np.ndarray) -> list[Sheet]:
    """The parts of the canvas with block and agent: one sheet if they are close, else two."""
    figure = block(corners(state))
    marks = [_mark(contact) for contact in contacts(state)]
    block_box = figure.box
    if marks:
        block_box = block_box.union(Box.around(itertools.chain(*marks), margin=1))
    x, y = np.rint(state[:2]).astype(np.int64).tolist()
    near_agent = Box.around([(x, y)], AGENT_RADIUS)
    if block_box.overlaps(near_agent):
        sheets = [Sheet.cut(background(), block_box.union(near_agent))]
    else:
        sheets = [Sheet.cut(background(), box) for box in (block_box, near_agent)]
    sheets[0].part(figure.box)[:] = figure.pixels
    np.copyto(sheets[-1].part(agent_box(x, y)), agent(), where=agent() > 0)
    sheets = [sheet.visible() for sheet in sheets]
    for sheet in sheets:
        _put_walls_on_top(sheet)
    for start, end in marks:
        shown = channels(sheets[0].pixels)[..., :3]
        fine_line(shown, start, end, CONTACT_COLOR, origin=sheets[0].box[:2])
    return sheets


def _put_walls_on_top(sheet: Sheet) -> None:
    # The walls run through the outermost tiles only.
    if min(sheet.box) < TILE or max(sheet.box) > WORLD_SIZE - TILE:
        place = sheet.box.seen_from(CANVAS)
        np.copyto(sheet.pixels, background()[place], where=walls()[place])


def _mark(contact: Contact) -> tuple[Pixel, Pixel]:
    """Start and end of the line that marks a contact."""
    outwards = contact.normal * CONTACT_REACH
    return _rounded(contact.on_other + outwards), _rounded(contact.on_block - outwards)


def _rounded(point: tuple[float, float]) -> Pixel:
    return round(point[0]), round(point[1])


@cache
def _background_image() -> np.ndarray:
    """(3, 96, 96) uint8: the image without block and agent."""
    return np.ascontiguousarray(_resized(background(), IMAGE_SIZE, IMAGE_SIZE))


def _resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Packed pixels (H, W) as (3, height, width) uint8 RGB."""
    return cv2.resize(channels(pixels), (width, height))[..., :3].transpose(2, 0, 1)
