"""Vectors in spherical coordinates, with gradients that are finite everywhere.

A vector (x, y, z) has a magnitude of at least :data:`LEAST_MAGNITUDE`, a polar angle theta from the
z axis in [0, pi] and an azimuth phi in the xy plane in [-pi, pi]. The vector 0 has theta = pi / 2
and phi = 0. A vector on the z axis has phi = 0, too.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEAST_MAGNITUDE = 1e-4
_LEAST_SQUARE = 1e-14
"""Square of the distance from the z axis below which a vector lies on it. The gradients of angles
grow with the inverse of that distance."""


def to_spherical(vector: Tensor) -> Tensor:
    """(..., 3) x, y, z -> (..., 3) magnitude, theta, phi."""
    x, y, z = vector.unbind(-1)
    off_axis = x.square() + y.square()
    square = off_axis + z.square()
    magnitude = square.clamp(min=LEAST_MAGNITUDE**2).sqrt()
    # acos(z / magnitude), whose gradient is infinite at the poles. The sum under the root is
    # magnitude^2 - z^2.
    missing = (LEAST_MAGNITUDE**2 - square).clamp(min=0)
    theta = torch.atan2((off_axis + missing).clamp(min=_LEAST_SQUARE).sqrt(), z)
    # The gradient of atan2 is not a number at (0, 0), also of a branch that is not taken.
    is_off_axis = off_axis >= _LEAST_SQUARE
    phi = torch.atan2(torch.where(is_off_axis, y, 0), torch.where(is_off_axis, x, 1))
    return torch.stack([magnitude, theta, phi], dim=-1)


def to_cartesian(spherical: Tensor) -> Tensor:
    """(..., 3) magnitude, theta, phi -> (..., 3) x, y, z."""
    magnitude, theta, phi = spherical.unbind(-1)
    off_axis = magnitude * theta.sin()
    return torch.stack([off_axis * phi.cos(), off_axis * phi.sin(), magnitude * theta.cos()], -1)


def wrapped(angle: Tensor) -> Tensor:
    """The same angle in [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
