"""Cut-outs of the canvas. Only these are drawn; the rest of an image stays the background."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from diffusion_policy.env.pusht.simulation import WORLD_SIZE

IMAGE_SIZE = 96
"""Side in pixels of the image observation."""

_COMMON = math.gcd(WORLD_SIZE, IMAGE_SIZE)
TILE = WORLD_SIZE // _COMMON
"""Side in pixels of the smallest square of the canvas that becomes whole pixels of the image."""
TILE_IN_IMAGE = IMAGE_SIZE // _COMMON
"""Side in pixels of that square in the image."""

Place = tuple[slice, slice]
"""Rows and columns."""


class Box(NamedTuple):
    """A rectangle of pixels, ``right`` and ``bottom`` exclusive; it may leave the canvas."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def around(cls, points: Iterable[tuple[int, int]], margin: int) -> Box:
        """The whole tiles around the pixels x, y with ``margin`` pixels on each side."""
        x, y = zip(*points, strict=True)
        return cls(
            (min(x) - margin) // TILE * TILE,
            (min(y) - margin) // TILE * TILE,
            (max(x) + margin) // TILE * TILE + TILE,
            (max(y) + margin) // TILE * TILE + TILE,
        )

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.right - self.left, self.bottom - self.top

    def overlaps(self, other: Box) -> bool:
        """Whether they share a pixel."""
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.bottom <= other.top or other.bottom <= self.top)

    def union(self, other: Box) -> Box:
        """The smallest box that holds both."""
        return Box(*map(min, self[:2], other[:2]), *map(max, self[2:], other[2:]))

    def on_canvas(self) -> Box:
        """The part on the canvas; an empty box at the border if there is none."""
        return Box(*(min(max(side, 0), WORLD_SIZE) for side in self))

    def seen_from(self, other: Box) -> Place:
        """Rows and columns of this box in an array of the pixels of ``other``, which holds it."""
        return (
            slice(self.top - other.top, self.bottom - other.top),
            slice(self.left - other.left, self.right - other.left),
        )


CANVAS = Box(0, 0, WORLD_SIZE, WORLD_SIZE)


class Sheet(NamedTuple):
    """A box and its packed pixels (H, W) uint32, including those beyond the canvas's border."""

    box: Box
    pixels: np.ndarray

    @classmethod
    def cut(cls, canvas: np.ndarray, box: Box) -> Sheet:
        """A copy of the canvas in the box; pixels beyond the canvas are undefined."""
        width, height = box.size
        pixels = np.empty((height, width), np.uint32)
        visible = box.on_canvas()
        pixels[visible.seen_from(box)] = canvas[visible.seen_from(CANVAS)]
        return cls(box, pixels)

    def part(self, box: Box) -> np.ndarray:
        """A view of the pixels of a box that lies in this one."""
        return self.pixels[box.seen_from(self.box)]

    def visible(self) -> Sheet:
        """A view of the part on the canvas."""
        visible = self.box.on_canvas()
        return Sheet(visible, self.part(visible))
