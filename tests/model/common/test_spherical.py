"""Spherical coordinates: there and back, at the poles and at zero, and gradients everywhere."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.model.common.spherical import (
    LEAST_MAGNITUDE,
    to_cartesian,
    to_spherical,
    wrapped,
)

NUMBER = st.floats(-2, 2, width=32)
VECTOR = st.tuples(NUMBER, NUMBER, NUMBER).map(lambda v: torch.tensor(v, dtype=torch.float32))
ANGLE = st.floats(-50, 50, width=32)
AXES = [(0, 0, 0), (0, 0, 1), (0, 0, -1), (1, 0, 0), (-1, 0, 0), (0, -1, 0), (0, 0, 1e-6)]


@given(VECTOR)
def test_a_vector_comes_back(vector):
    spherical = to_spherical(vector)
    magnitude, theta, phi = spherical.tolist()
    assert magnitude >= LEAST_MAGNITUDE * (1 - 1e-6)
    assert 0 <= theta <= math.pi + 1e-6
    assert abs(phi) <= math.pi + 1e-6
    # A vector shorter than the least magnitude comes back as one of that length at most.
    torch.testing.assert_close(to_cartesian(spherical), vector, atol=1.01 * LEAST_MAGNITUDE, rtol=0)
    if vector.norm() > LEAST_MAGNITUDE:
        torch.testing.assert_close(to_cartesian(spherical), vector, atol=2e-6, rtol=0)


@given(st.floats(0.01, 2), st.floats(0.01, 3.13), st.floats(-3.1, 3.1))
def test_coordinates_come_back(magnitude, theta, phi):
    spherical = torch.tensor([magnitude, theta, phi])
    torch.testing.assert_close(
        to_spherical(to_cartesian(spherical)), spherical, atol=1e-3, rtol=1e-5
    )


@pytest.mark.parametrize("vector", AXES)
def test_coordinates_are_those_of_the_definition(vector):
    vector = torch.tensor(vector, dtype=torch.float32)
    magnitude = vector.norm().clamp(min=1e-4)
    expected = [magnitude, (vector[2] / magnitude).acos(), torch.atan2(vector[1], vector[0])]
    torch.testing.assert_close(to_spherical(vector), torch.stack(expected), atol=1e-6, rtol=1e-6)


@given(VECTOR)
def test_gradients_are_finite(vector):
    vector = vector.clone().requires_grad_()
    spherical = to_spherical(vector)
    (spherical.sum() + to_cartesian(spherical).square().sum()).backward()
    assert vector.grad.isfinite().all()


@pytest.mark.parametrize("vector", [*AXES, (1e-30, 0, 1), (1e-20, -1e-20, 0), (1e-8, 1e-8, -1)])
def test_gradients_are_finite_at_the_poles_and_at_zero(vector):
    vector = torch.tensor(vector, dtype=torch.float32, requires_grad=True)
    to_spherical(vector).sum().backward()
    assert vector.grad.isfinite().all()


@given(ANGLE)
def test_a_wrapped_angle_is_the_same_one(angle):
    angle = torch.tensor(angle, dtype=torch.float64)
    inside = wrapped(angle)
    assert -math.pi <= inside < math.pi
    torch.testing.assert_close(inside.sin(), angle.sin(), atol=1e-9, rtol=0)
    torch.testing.assert_close(inside.cos(), angle.cos(), atol=1e-9, rtol=0)
