"""The T-shaped block: its two rectangles, the points fixed to it, and where they lie in the world.

Block coordinates have their origin in the middle of the bar's outer edge; the stem points along y.
"""

from __future__ import annotations

import math

import numpy as np
import pymunk

from diffusion_policy.env.pusht.geometry import Point

_SCALE = 30
BAR: list[Point] = [
    (-2 * _SCALE, _SCALE),
    (2 * _SCALE, _SCALE),
    (2 * _SCALE, 0),
    (-2 * _SCALE, 0),
]
STEM: list[Point] = [
    (-_SCALE / 2, _SCALE),
    (-_SCALE / 2, 4 * _SCALE),
    (_SCALE / 2, 4 * _SCALE),
    (_SCALE / 2, _SCALE),
]
"""The T as two rectangles, in block coordinates."""

VERTICES = np.array(
    [vertex for part in (BAR, STEM) for vertex in pymunk.Poly(None, part).get_vertices()]
)
"""(8, 2) corners of bar, then stem, in block coordinates. pymunk's order, which LeRobot uses."""

KEYPOINTS = np.array(
    [
        (9.269786713763871, 90.04097352393619),
        (-60.983472364471474, -1.1867297607997276),
        (60.91275557727772, -1.3933642242328201),
        (-0.2705034390160016, 25.54362499146542),
        (-14.064927576212233, 122.81585355412153),
        (39.002738500170146, 32.857404276587566),
        (-39.966414424694534, 32.729655446429945),
        (-16.82434437939744, 62.86317892234989),
        (23.54146122024909, -1.7002881094626152),
    ]
)
"""(9, 2) the benchmark's keypoints in block coordinates (Diffusion Policy's PushT-lowdim)."""


def transform(points: list[Point], x: float, y: float, angle: float) -> list[Point]:
    """Rotate ``points`` by ``angle`` (radians), then translate them by (x, y)."""
    cos, sin = math.cos(angle), math.sin(angle)
    return [(x + px * cos - py * sin, y + px * sin + py * cos) for px, py in points]


def block_to_world(points: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Points fixed to the block (K, 2), in world units for each state (..., 5) -> (..., K, 2)."""
    state = np.asarray(state, dtype=np.float64)
    angle = state[..., 4, None, None]
    x_axis = np.concatenate([np.cos(angle), np.sin(angle)], axis=-1)  # of the block
    y_axis = x_axis[..., ::-1] * [-1, 1]
    return points[:, :1] * x_axis + points[:, 1:] * y_axis + state[..., None, 2:4]
