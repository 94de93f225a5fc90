"""The physics of PushT: a circular agent pushes a T-shaped block inside four walls.

World units are pixels of a 512 x 512 canvas whose y axis points down. The constants are the
benchmark's, in which the published demonstrations were recorded (Diffusion Policy, Chi et al. 2023,
section 5; after Implicit Behavioral Cloning, Florence et al. 2021).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pymunk

from diffusion_policy.env.pusht.block import BAR, STEM, transform
from diffusion_policy.env.pusht.geometry import (
    counter_clockwise,
    intersection_area,
    polygon_area,
)

WORLD_SIZE = 512
"""Side of the square world; actions and positions lie in [0, WORLD_SIZE]."""
CONTROL_HZ = 10
PHYSICS_HZ = 100
AGENT_RADIUS = 15
WALL_RADIUS = 2
GOAL_POSE = (256.0, 256.0, math.pi / 4)
"""Goal (x, y, angle) of the T; x and y of the corner of its body frame."""
SUCCESS_COVERAGE = 0.95
"""A step succeeds when the block covers strictly more than this share of the goal."""

WALLS = [
    ((5, 506), (5, 5)),
    ((5, 5), (506, 5)),
    ((506, 5), (506, 506)),
    ((5, 506), (506, 506)),
]
# Gains of the PD law that drives the agent to the commanded position.
_STIFFNESS, _DAMPING = 100.0, 20.0

_BLOCK_AREA = polygon_area(BAR) + polygon_area(STEM)
_GOAL = [counter_clockwise(transform(part, *GOAL_POSE)) for part in (BAR, STEM)]


def initial_state(seed: int) -> np.ndarray:
    """The benchmark's random start for ``seed``: (5,) float64 in the order of ``get_state``."""
    random = np.random.RandomState(seed)
    agent = random.randint(50, 450), random.randint(50, 450)
    block = random.randint(100, 400), random.randint(100, 400)
    angle = random.randn() * 2 * math.pi - math.pi
    return np.array([*agent, *block, angle], dtype=np.float64)


class PushTSimulation:
    """PushT without observations, rewards or episodes: set a state, apply actions.

    To copy a world, construct another simulation and ``set_state`` it; that is cheap.

    Attributes:
        agent: kinematic body of the agent; ``position`` in world units, ``velocity`` per second.
        block: dynamic body of the T.
    """

    def __init__(self) -> None:
        self.space = pymunk.Space()
        self.space.gravity = 0, 0
        self.space.damping = 0
        self.walls = [pymunk.Segment(self.space.static_body, a, b, WALL_RADIUS) for a, b in WALLS]
        self.space.add(*self.walls)
        self.agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self.agent.position = (256, 400)
        # The benchmark sets friction on the body, where pymunk ignores it: contacts have none.
        self.agent.friction = 1
        self.agent_shape = pymunk.Circle(self.agent, AGENT_RADIUS)
        self.space.add(self.agent, self.agent_shape)
        self.block, self.block_shapes = self._add_block()

    def _add_block(self) -> tuple[pymunk.Body, list[pymunk.Poly]]:
        # The benchmark counts the bar's moment twice instead of bar plus stem. Trajectories depend
        # on it.
        moment = 2 * pymunk.moment_for_poly(1, BAR)
        block = pymunk.Body(1, moment)
        bar, stem = pymunk.Poly(block, BAR), pymunk.Poly(block, STEM)
        block.center_of_gravity = (bar.center_of_gravity + stem.center_of_gravity) / 2
        block.position = (256, 300)
        block.angle = 0
        block.friction = 1
        self.space.add(block, bar, stem)
        return block, [bar, stem]

    def set_state(self, state: np.ndarray, *, legacy: bool = True) -> None:
        """Place agent and block, then let one physics step settle contacts.

        Args:
            state: (5,) agent x, agent y, block x, block y, block angle in radians.
            legacy: write the block's position before its angle. The block turns about its
                centre of gravity, so this order moves it. The human data was recorded this way.
        """
        agent_x, agent_y, block_x, block_y, angle = (float(value) for value in state)
        self.agent.velocity = (0, 0)
        self.agent.position = (agent_x, agent_y)
        self.block.velocity = (0, 0)
        self.block.angular_velocity = 0
        if legacy:
            self.block.position = (block_x, block_y)
            self.block.angle = angle
        else:
            self.block.angle = angle
            self.block.position = (block_x, block_y)
        self.space.step(1 / PHYSICS_HZ)

    def get_state(self) -> np.ndarray:
        """(5,) float64: agent x, y, block x, y, block angle in radians (not wrapped)."""
        (agent_x, agent_y), (block_x, block_y) = self.agent.position, self.block.position
        return np.array([agent_x, agent_y, block_x, block_y, self.block.angle])

    def step(self, target: np.ndarray) -> None:
        """Drive the agent towards ``target`` (2,) in world units for one control period."""
        target_x, target_y = float(target[0]), float(target[1])
        dt = 1 / PHYSICS_HZ
        agent, space = self.agent, self.space
        velocity_x, velocity_y = agent.velocity
        for _ in range(PHYSICS_HZ // CONTROL_HZ):
            x, y = agent.position
            velocity_x += (_STIFFNESS * (target_x - x) + _DAMPING * (0 - velocity_x)) * dt
            velocity_y += (_STIFFNESS * (target_y - y) + _DAMPING * (0 - velocity_y)) * dt
            agent.velocity = (velocity_x, velocity_y)
            space.step(dt)

    def coverage(self) -> float:
        """Share of the goal T that the block covers, in [0, 1]."""
        x, y = self.block.position
        return _coverage(x, y, self.block.angle)


@lru_cache(maxsize=256)  # a block often rests while the agent moves; a worker has many blocks
def _coverage(x: float, y: float, angle: float) -> float:
    overlap = sum(
        intersection_area(part, goal)
        for part in (transform(BAR, x, y, angle), transform(STEM, x, y, angle))
        for goal in _GOAL
    )
    return overlap / _BLOCK_AREA
