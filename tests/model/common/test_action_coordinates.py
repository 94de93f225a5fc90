"""Coordinates of actions and their errors, against hand-computed cases."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.model.common.action_coordinates import (
    COORDINATES,
    LARGEST_MAGNITUDE,
    build_coordinates,
    huber_error,
)
from diffusion_policy.util.errors import UserError

RAW = st.tuples(*[st.floats(-1, 1, width=32)] * 3).map(lambda raw: torch.tensor(raw))


def error(name: str, raw: list[float], action: list[float], weighted: bool) -> list[float]:
    coordinates = build_coordinates(name, len(action))
    found = huber_error(
        coordinates, torch.tensor(raw), torch.tensor(action), magnitude_weights=weighted
    )
    return found.tolist()


@pytest.mark.parametrize("weighted", [False, True])
def test_cartesian_error(weighted):
    # |0.5| < 1: half its square; |1.5| >= 1: less a half. The norm of (0, 0.6, -0.8) is 1.
    expected = torch.tensor([0.125, 0.0, 1.0]) * (3 if weighted else 1)
    found = error("cartesian", [0.5, 0.6, 0.7], [0.0, 0.6, -0.8], weighted)
    torch.testing.assert_close(torch.tensor(found), expected)
    assert error("cartesian", [0.5, 0.5], [0.5, 0.0], False) == [0.0, 0.125]


def test_spherical_error_goes_the_short_way_round():
    # Azimuths 0.9 pi and -0.9 pi are 0.2 pi apart.
    phi = 0.9 * math.pi
    action = [math.cos(-phi), math.sin(-phi), 0.0]
    found = error("spherical", [0.0, 0.0, 0.9], action, False)
    expected = [(1 - 0.5) ** 2 / 2, 0.0, (0.2 * math.pi) ** 2 / 2]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), atol=1e-5, rtol=1e-5)
    weighted = error("spherical", [0.0, 0.0, 0.9], action, True)
    torch.testing.assert_close(
        torch.tensor(weighted), 3 * torch.tensor(expected), atol=1e-4, rtol=0
    )


@given(RAW)
def test_ranges_of_spherical_values(raw):
    seed, full = (
        build_coordinates(name, 3).values(raw) for name in ("spherical", "spherical_full")
    )
    assert torch.equal(seed[1:], full[1:])
    assert 1 / (1 + math.e) - 1e-6 <= seed[0] <= math.e / (1 + math.e) + 1e-6
    assert 0 <= full[0] <= LARGEST_MAGNITUDE
    assert 0 <= seed[1] <= math.pi + 1e-6


@pytest.mark.parametrize("name", COORDINATES)
def test_an_action_within_reach_comes_back(name):
    coordinates = build_coordinates(name, 3)
    action = torch.tensor([[0.3, -0.2, 0.4], [-0.1, 0.5, 0.0], [0.0, 0.0, -0.5], [0.6, 0.1, 0.1]])
    torch.testing.assert_close(coordinates.to_action(coordinates.of_action(action)), action)


def test_full_range_reaches_the_corners():
    corner = torch.ones(3)
    for name, reaches in (("spherical", False), ("spherical_full", True)):
        coordinates = build_coordinates(name, 3)
        _, theta, phi = coordinates.of_action(corner).tolist()
        raw = torch.tensor([1.0, 2 * theta / math.pi - 1, phi / math.pi])
        nearest = coordinates.to_action(coordinates.values(raw))
        assert torch.allclose(nearest, corner, atol=1e-5) == reaches


@pytest.mark.parametrize("name", COORDINATES)
def test_gradients_are_finite(name):
    raw = torch.tensor([[0.0] * 3, [-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]], requires_grad=True)
    actions = torch.tensor([[0.0] * 3, [0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    error = huber_error(build_coordinates(name, 3), raw, actions, magnitude_weights=True)
    error.sum().backward()
    assert raw.grad.isfinite().all()


def test_unfit_coordinates_are_refused():
    with pytest.raises(UserError, match="coordinates is 'polar'; use one of cartesian, spherical,"):
        build_coordinates("polar", 3)
    with pytest.raises(
        UserError, match="coordinates is 'spherical'; use cartesian, since an action "
    ):
        build_coordinates("spherical", 2)
