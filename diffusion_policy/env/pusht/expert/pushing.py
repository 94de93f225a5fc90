"""How a push moves the T: its faces, the arcs along which pushes move it, and planar poses.

The block has no friction with the floor and stops when nothing pushes it. So a push at a fixed
place of a face moves the block by a constant twist, along an arc.

A *pose* (..., 3) is x, y and angle of a frame at the block's centre of gravity. *Local* means
coordinates in that frame. A *motion* (..., 3) is a local twist times its duration: the arc's
forward, sideways and angular extent. Lengths are in world units, angles in radians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pymunk

from diffusion_policy.env.pusht.block import BAR, STEM, transform
from diffusion_policy.env.pusht.simulation import AGENT_RADIUS, GOAL_POSE

COG = np.array([0.0, 45.0])
"""Centre of gravity in block coordinates."""
INERTIA_PER_MASS = 2 * pymunk.moment_for_poly(1, BAR)
"""The simulation's moment of inertia for a mass of 1."""
CORNERS = np.array([*BAR, *STEM], float) - COG
"""(8, 2) local corners of bar and stem."""
RIM = 4.0
"""Distance of contacts from a corner, where the direction of the push would turn."""
CLEARANCE = 4.0
"""Free space between agent and block, except at a contact."""


@dataclass(frozen=True)
class Face:
    """A side of the T to push: places ``origin + s * tangent`` for s in [low, high].

    ``origin`` is in block coordinates, ``normal`` points into the block, and a search tries
    ``samples`` places.
    """

    origin: tuple[float, float]
    tangent: tuple[float, float]
    normal: tuple[float, float]
    low: float
    high: float
    samples: int


def _faces() -> list[Face]:
    half_bar, thickness = BAR[1][0], BAR[1][1]
    half_stem, length = STEM[2][0], STEM[2][1]
    # The agent needs its own width beside an inner corner.
    room = AGENT_RADIUS + CLEARANCE + 2
    top = Face((0, 0), (1, 0), (0, 1), -half_bar + RIM, half_bar - RIM, 10)
    tip = Face((0, length), (1, 0), (0, -1), -half_stem + RIM, half_stem - RIM, 4)
    sides = []
    for side in (-1, 1):
        inward, down = (-side, 0), (0, 1)
        underside = half_stem + room, half_bar - RIM
        sides += [
            Face((side * half_bar, 0), down, inward, RIM, thickness - RIM, 4),
            Face((0, thickness), (side, 0), (0, -1), *underside, 3),
            Face((side * half_stem, 0), down, inward, thickness + room, length - RIM, 8),
        ]
    return [top, *sides, tip]


FACES = _faces()
FACE_LOW = np.array([face.low for face in FACES])
FACE_HIGH = np.array([face.high for face in FACES])
_ORIGIN = np.array([face.origin for face in FACES], float) - COG
_TANGENT = np.array([face.tangent for face in FACES], float)
_NORMAL = np.array([face.normal for face in FACES], float)


def contact(face: np.ndarray, s: np.ndarray, gap: float = 0.0) -> np.ndarray:
    """Local position (..., 2) of an agent at distance ``gap`` from place ``s`` of ``face``."""
    surface = _ORIGIN[face] + np.asarray(s)[..., None] * _TANGENT[face]
    return surface - (AGENT_RADIUS + gap) * _NORMAL[face]


def before_face(agent: np.ndarray, face: np.ndarray, reach: float) -> np.ndarray:
    """Whether an agent at local ``agent`` (2,) stands in front of ``face`` (...).

    ``reach`` is the largest free space between them. From there the agent may slide along the
    face, which does not move the block, because contacts have no friction.
    """
    offset = agent - _ORIGIN[face]
    along = (offset * _TANGENT[face]).sum(-1)
    gap = -(offset * _NORMAL[face]).sum(-1) - AGENT_RADIUS
    beside = (along > FACE_LOW[face] - RIM) & (along < FACE_HIGH[face] + RIM)
    return beside & (gap > -AGENT_RADIUS) & (gap < reach)


def twist(face: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Motion (..., 3) of the block per unit of the contact's advance.

    An impulse j along the normal n at the arm r gives the velocity j n / m and the spin
    j (r x n) / I, so the contact advances by j (1 / m + (r x n)^2 / I).
    """
    surface = _ORIGIN[face] + np.asarray(s)[..., None] * _TANGENT[face]
    normal = _NORMAL[face]
    lever = surface[..., 0] * normal[..., 1] - surface[..., 1] * normal[..., 0]
    advance = 1 + lever**2 / INERTIA_PER_MASS
    spin = (lever / INERTIA_PER_MASS)[..., None]
    return np.concatenate([normal, spin], -1) / advance[..., None]


def cog_pose(x: float, y: float, angle: float) -> np.ndarray:
    """The pose (3,) of a block whose body is at x, y and angle of a state."""
    (cog,) = transform([(COG[0], COG[1])], x, y, angle)
    return np.array([*cog, angle])


GOAL = cog_pose(*GOAL_POSE)


def moved(pose: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """The pose (..., 3) after ``motion`` (..., 3): the exponential map of the planar group."""
    angle = motion[..., 2]
    straight = np.abs(angle) < 1e-9
    divisor = np.where(straight, 1.0, angle)
    sine = np.where(straight, 1.0, np.sin(divisor) / divisor)
    versine = np.where(straight, 0.0, (1 - np.cos(divisor)) / divisor)
    x = sine * motion[..., 0] - versine * motion[..., 1]
    y = versine * motion[..., 0] + sine * motion[..., 1]
    position = to_world(np.stack([x, y], -1), pose)
    return np.concatenate([position, (pose[..., 2] + angle)[..., None]], -1)


def motion_to_goal(pose: np.ndarray) -> np.ndarray:
    """The motion (..., 3) from ``pose`` to the goal; it turns by at most pi."""
    angle = (GOAL[2] - pose[..., 2] + np.pi) % (2 * np.pi) - np.pi
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    dx, dy = GOAL[0] - pose[..., 0], GOAL[1] - pose[..., 1]
    x, y = cos * dx + sin * dy, -sin * dx + cos * dy
    half = np.where(np.abs(angle) < 1e-9, 1e-9, angle) / 2
    cotangent = half / np.tan(half)
    return np.stack([cotangent * x + half * y, cotangent * y - half * x, angle], -1)


def to_world(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """World coordinates (..., 2) of local ``points`` (..., 2) under ``pose`` (..., 3)."""
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    x, y = points[..., 0], points[..., 1]
    return np.stack([pose[..., 0] + cos * x - sin * y, pose[..., 1] + sin * x + cos * y], -1)


def to_local(point: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Local coordinates (2,) of the world ``point`` (2,) under ``pose`` (3,)."""
    cos, sin = math.cos(pose[2]), math.sin(pose[2])
    dx, dy = point[0] - pose[0], point[1] - pose[1]
    return np.array([cos * dx + sin * dy, -sin * dx + cos * dy])
