"""Random states of PushT, for what is learned from pictures alone and not from demonstrations."""

from __future__ import annotations

import math

import numpy as np

from diffusion_policy.env.pusht.simulation import GOAL_POSE, WORLD_SIZE

# Precision decides near the goal, and there the block hides it.
_NEAR_GOAL_SHARE, _NEAR_GOAL_SPREAD, _NEAR_GOAL_ANGLE_SPREAD = 0.4, 25.0, 0.3
# While it pushes, the agent is close to the block and hides some of it.
_NEAR_BLOCK_SHARE, _NEAR_BLOCK_SPREAD = 0.5, 70.0
# Of the block's corner from the walls: half a T, so that one reaches through them now and then.
_MARGIN = 60.0


def random_scenes(n: int, random: np.random.Generator) -> np.ndarray:
    """(n, 5) float64 states: agent x, y, block x, y in world units, block angle in radians.

    They are for pictures: the agent may overlap the block and the block the walls, as they never
    do in the simulation. The agent is in the world; keypoints may lie up to 70 units outside.
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
