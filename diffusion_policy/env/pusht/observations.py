"""What a PushT policy may see: a table of observation names, each a function of the state.

The environment and the dataset use the same functions, so a policy meets in simulation exactly
what it was trained on. A state is (..., 5): agent x, y, block x, y in world units and block angle
in radians; every function but ``image`` maps any leading axes to (..., D) float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pymunk
from gymnasium import spaces

from diffusion_policy.env.pusht.simulation import BAR, STEM, WORLD_SIZE

IMAGE_SIZE = 96
"""Side in pixels of the image observation."""

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

VERTICES = np.array(
    [vertex for part in (BAR, STEM) for vertex in pymunk.Poly(None, part).get_vertices()]
)
"""(8, 2) corners of bar, then stem, in block coordinates, in LeRobot's order: pymunk's own."""


def block_to_world(points: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Points fixed to the block (K, 2), in world units for each state (..., 5) -> (..., K, 2)."""
    state = np.asarray(state, dtype=np.float64)
    angle = state[..., 4, None, None]
    x_axis = np.concatenate([np.cos(angle), np.sin(angle)], axis=-1)  # of the block
    y_axis = x_axis[..., ::-1] * [-1, 1]
    return points[:, :1] * x_axis + points[:, 1:] * y_axis + state[..., None, 2:4]


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
    """(3, 96, 96) uint8 RGB picture of one state (5,)."""
    # Imported late: a worker that never draws should not pay for pygame and OpenCV.
    from diffusion_policy.env.pusht.renderer import observation_image

    return observation_image(state)


def _flat(points: np.ndarray) -> np.ndarray:
    return points.reshape(*points.shape[:-2], -1).astype(np.float32)


def _world(size: int) -> spaces.Box:
    # Only a touch of the agent moves the block, and the T is a quarter of the world: even
    # squeezed through a wall it stays within one world size of the walls.
    return spaces.Box(-WORLD_SIZE, 2 * WORLD_SIZE, (size,), np.float32)


class Observation(NamedTuple):
    """A named observation: what it looks like, and how to compute it from a state."""

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
