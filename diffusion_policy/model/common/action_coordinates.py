"""The coordinates in which a network predicts an action, and the error that it learns from.

A network ends in tanh: three raw numbers in [-1, 1]. Coordinates turn them into values, compare
values with those of a recorded action, and turn values into an action.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_policy.model.common.spherical import to_cartesian, to_spherical, wrapped
from diffusion_policy.util.errors import require

LARGEST_MAGNITUDE = math.sqrt(3)
"""Magnitude of an action whose three numbers are all 1 or -1."""


class ActionCoordinates(ABC):
    """Actions are normalised, to [-1, 1] as a rule; shapes are (..., Da)."""

    @abstractmethod
    def values(self, raw: Tensor) -> Tensor:
        """Values from the raw numbers of a network."""

    @abstractmethod
    def of_action(self, action: Tensor) -> Tensor:
        """Values of a recorded action."""

    @abstractmethod
    def to_action(self, values: Tensor) -> Tensor:
        """The action with these values."""

    def difference(self, predicted: Tensor, recorded: Tensor) -> Tensor:
        """By which predicted values differ from recorded ones."""
        return predicted - recorded


class Cartesian(ActionCoordinates):
    """An action as it is."""

    def values(self, raw: Tensor) -> Tensor:
        return raw

    def of_action(self, action: Tensor) -> Tensor:
        return action

    def to_action(self, values: Tensor) -> Tensor:
        return values


class Spherical(ActionCoordinates):
    """Magnitude, polar angle and azimuth of an action of three numbers, see ``spherical.py``.

    The magnitude is the sigmoid of the raw number, which tanh keeps in 0.27 to 0.73.
    """

    def values(self, raw: Tensor) -> Tensor:
        theta, phi = (raw[..., 1] + 1) / 2 * math.pi, raw[..., 2] * math.pi
        return torch.stack([self._magnitude(raw[..., 0]), theta, phi], dim=-1)

    def _magnitude(self, raw: Tensor) -> Tensor:
        return raw.sigmoid()

    def of_action(self, action: Tensor) -> Tensor:
        return to_spherical(action)

    def to_action(self, values: Tensor) -> Tensor:
        return to_cartesian(values)

    def difference(self, predicted: Tensor, recorded: Tensor) -> Tensor:
        """The azimuth is compared the short way round the circle."""
        apart = predicted - recorded
        return torch.cat([apart[..., :2], wrapped(apart[..., 2:])], dim=-1)


class FullSpherical(Spherical):
    """The same, with magnitudes from 0 to :data:`LARGEST_MAGNITUDE`, linear in the raw number."""

    def _magnitude(self, raw: Tensor) -> Tensor:
        return (raw + 1) / 2 * LARGEST_MAGNITUDE


COORDINATES: dict[str, Callable[[], ActionCoordinates]] = {
    "cartesian": Cartesian,
    "spherical": Spherical,
    "spherical_full": FullSpherical,
}


def build_coordinates(name: str, action_dim: int) -> ActionCoordinates:
    """The coordinates of that name, for actions of ``action_dim`` numbers.

    Raises:
        UserError: the name is unknown, or the action has no three numbers and they are spherical.
    """
    known = f"use one of {', '.join(COORDINATES)}"
    require(name in COORDINATES, "policy.coordinates", name, known)
    fits = action_dim == 3 or name == "cartesian"
    remedy = f"use cartesian, since an action has {action_dim} numbers and not 3"
    require(fits, "policy.coordinates", name, remedy)
    return COORDINATES[name]()


def huber_error(
    coordinates: ActionCoordinates, raw: Tensor, action: Tensor, *, magnitude_weights: bool
) -> Tensor:
    """(..., Da) Huber losses (beta 1) of raw predictions against recorded actions.

    Args:
        magnitude_weights: weigh each by 1 + 2 * the norm of the recorded action, so that large
            movements count more.
    """
    apart = coordinates.difference(coordinates.values(raw), coordinates.of_action(action))
    error = F.smooth_l1_loss(apart, torch.zeros_like(apart), reduction="none")
    if magnitude_weights:
        error = error * (1 + 2 * action.norm(dim=-1, keepdim=True))
    return error
