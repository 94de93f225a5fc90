"""Random states of PushT, to learn from images without demonstrations."""

from __future__ import annotations

import math

import numpy as np

from diffusion_policy.env.pusht.simulation import GOAL_POSE, WORLD_SIZE

# Precision matters most near the goal, where the block hides it.
_NEAR_GOAL_SHARE, _NEAR_GOAL_SPREAD, _NEAR_GOAL_ANGLE_SPREAD = 0.4, 25.0, 0.3
# An agent that pushes is close to the block and hides a part of it.
_NEAR_BLOCK_SHARE, _NEAR_BLOCK_SPREAD = 0.5, 70.0
# Distance of the block's origin from the border: half a T, so some blocks reach through a wall.
_MARGIN = 60.0


def random_scenes(n: int, random: np.random.Generator) -> np.ndarray:
    """(n, 5) float64 states: agent x, y, block x, y in world units, block angle in radians.

    The states are meant for images: unlike in the simulation, the agent may overlap the block, and
    the block the walls. The agent is in the world; keypoints may lie up to 70 units outside.
    """
    near_goal = random.random(n) < _NEAR_GOAL_SHARE
    place = random.uniform(_MARGIN, WORLD_SIZE - _MARGIN, (n, 2))
    angle = random.uniform(-math.pi, math.pi, n)
    place[near_goal] = random.normal(GOAL_POSE[:2], _NEAR_GOAL_SPREAD, (near_goal.sum(), 2))
    angle[near_goal] = random.normal(GOAL_POSE[2], _NEAR_GOAL_ANGLE_SPREAD, near_goal.sum())
    near_block = random.random(n) < _NEAR_BLOCK_SHARE
    agent = random.uniform(0, WORLD_SIZE, (n, 2))
    agent[near_block] = random.normal(place[near_block], _NEAR_BLOCK_SPREAD)
    return np.concatenate([agent.clip(0, WORLD_SIZE), place, angle[:, None]], axis=1)
