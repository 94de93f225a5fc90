"""PushT in a mirror: the task is the same on both sides of the line x + y = 512.

The block is symmetric about its stem, and at the goal the stem lies on that line. So a mirrored
demonstration is another demonstration. Only the walls are not symmetric: they lie one unit off.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffusion_policy.env.pusht.block import KEYPOINTS, VERTICES
from diffusion_policy.env.pusht.simulation import WORLD_SIZE
from diffusion_policy.transforms.mirror import BaseMirror
from diffusion_policy.util.errors import UserError


@dataclass(frozen=True)
class Mirror(BaseMirror):
    """Maps observations and actions of PushT to those of the mirrored world."""

    def __call__(self, key: str, values: np.ndarray) -> np.ndarray:
        """A new array of the same dtype; see :class:`BaseMirror`.

        Raises:
            UserError: PushT has no observation ``key``.
        """
        if key not in _MIRRORS:
            raise UserError(
                f"PushT has no observation {key!r} to mirror, only {', '.join(_MIRRORS)}; "
                "correct shape_meta.obs or set task.dataset.mirrored=false"
            )
        return _MIRRORS[key](values)


def _points(values: np.ndarray) -> np.ndarray:
    """(..., 2 K) x, y of points anywhere."""
    pairs = values.reshape(*values.shape[:-1], -1, 2)
    return (WORLD_SIZE - pairs[..., ::-1]).reshape(values.shape)


class _BlockPoints:
    """(..., 2 K) points fixed to the block.

    The twin of a point lies across the stem from it. In every pose of the block it is the same
    affine combination of the points.
    """

    def __init__(self, points: np.ndarray) -> None:
        homogeneous = np.insert(points, 2, 1, axis=1)
        self.twins = (homogeneous * [-1, 1, 1]) @ np.linalg.pinv(homogeneous)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        pairs = values.reshape(*values.shape[:-1], -1, 2)
        twins = self.twins.astype(values.dtype) @ pairs
        return _points(twins.reshape(values.shape))


def _state(values: np.ndarray) -> np.ndarray:
    """(..., 5) agent, block, angle."""
    angle = (math.pi / 2 - values[..., 4:]) % (2 * math.pi)
    return np.concatenate([_points(values[..., :4]), angle], axis=-1, dtype=values.dtype)


def _obs(values: np.ndarray) -> np.ndarray:
    """(..., 20) keypoints, then agent."""
    keypoints, agent = values[..., :-2], values[..., -2:]
    return np.concatenate([_keypoint(keypoints), _points(agent)], axis=-1)


def _image(values: np.ndarray) -> np.ndarray:
    """(..., H, W), H = W."""
    return values.swapaxes(-1, -2)[..., ::-1, ::-1].copy()


_keypoint = _BlockPoints(KEYPOINTS)
_MIRRORS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "agent_pos": _points,
    "block_pos": _points,
    "state": _state,
    "keypoint": _keypoint,
    "environment_state": _BlockPoints(VERTICES),
    "obs": _obs,
    "image": _image,
    "action": _points,
}
