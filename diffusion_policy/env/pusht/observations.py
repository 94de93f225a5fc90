"""The observations of PushT by name, each a function of the state.

The environment and the dataset use the same functions, so a policy sees in simulation exactly what
it was trained on. A state is (..., 5): agent x, y, block x, y in world units and block angle in
radians. Every function but ``image`` maps it to (..., D) float32 for any leading axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from diffusion_policy.env.pusht.block import KEYPOINTS, VERTICES, block_to_world
from diffusion_policy.env.pusht.render.sheet import IMAGE_SIZE
from diffusion_policy.env.pusht.simulation import WORLD_SIZE


def agent_pos(state: np.ndarray) -> np.ndarray:
    """(..., 2) agent x, y."""
    return np.asarray(state)[..., :2].astype(np.float32)


def block_pos(state: np.ndarray) -> np.ndarray:
    """(..., 2) block x, y."""
    return np.asarray(state)[..., 2:4].astype(np.float32)


def wrapped_state(state: np.ndarray) -> np.ndarray:
    """(..., 5) the state with its angle in [0, 2 pi)."""
    state = np.array(state, dtype=np.float64)
    state[..., 4] %= 2 * math.pi
    return state.astype(np.float32)


def keypoint(state: np.ndarray) -> np.ndarray:
    """(..., 18) x, y of each of the 9 keypoints."""
    return _flat(block_to_world(KEYPOINTS, state))


def environment_state(state: np.ndarray) -> np.ndarray:
    """(..., 16) x, y of each of the 8 corners."""
    return _flat(block_to_world(VERTICES, state))


def obs(state: np.ndarray) -> np.ndarray:
    """(..., 20) the benchmark's low-dimensional observation: keypoints, then agent x, y."""
    return np.concatenate([keypoint(state), agent_pos(state)], axis=-1)


def image(state: np.ndarray) -> np.ndarray:
    """(3, 96, 96) uint8 RGB image of one state (5,)."""
    # Imported late: a worker that never draws does without OpenCV (17 MB).
    from diffusion_policy.env.pusht.render.renderer import observation_image

    return observation_image(state)


def _flat(points: np.ndarray) -> np.ndarray:
    return points.reshape(*points.shape[:-2], -1).astype(np.float32)


def _world(size: int) -> spaces.Box:
    # Only the agent's touch moves the block, and the T is a quarter of the world in size: even a
    # block squeezed through a wall stays within one world size of the walls.
    return spaces.Box(-WORLD_SIZE, 2 * WORLD_SIZE, (size,), np.float32)


class Observation(NamedTuple):
    """Space of an observation, and the function that computes it from a state."""

    space: spaces.Box
    compute: Callable[[np.ndarray], np.ndarray]


OBSERVATIONS: dict[str, Observation] = {
    "agent_pos": Observation(_world(2), agent_pos),
    "block_pos": Observation(_world(2), block_pos),
    "state": Observation(_world(5), wrapped_state),
    "keypoint": Observation(_world(18), keypoint),
    "environment_state": Observation(_world(16), environment_state),
    "obs": Observation(_world(20), obs),
    "image": Observation(spaces.Box(0, 255, (3, IMAGE_SIZE, IMAGE_SIZE), np.uint8), image),
}
