"""Observations as functions of the state."""

import math

import numpy as np
import pytest

from diffusion_policy.env.pusht.block import VERTICES
from diffusion_policy.env.pusht.observations import OBSERVATIONS
from diffusion_policy.env.pusht.simulation import PushTSimulation, initial_state
from tests.reference import golden

LOW_DIM = sorted(OBSERVATIONS.keys() - {"image"})
EPISODES = [key.removesuffix("_state") for key in golden("pusht_env") if key.endswith("_state")]


@pytest.mark.parametrize("episode", EPISODES)
def test_keypoints_are_the_benchmarks(episode):
    reference = golden("pusht_env")
    states, keypoints = reference[f"{episode}_state"], reference[f"{episode}_keypoints"]
    expected = keypoints.astype(np.float32)
    np.testing.assert_allclose(OBSERVATIONS["keypoint"].compute(states), expected, rtol=1e-6)
    np.testing.assert_allclose(
        OBSERVATIONS["obs"].compute(states),
        np.concatenate([expected, states[:, :2].astype(np.float32)], axis=1),
        rtol=1e-6,
    )


def test_environment_state_holds_pymunks_vertices_in_world_coordinates():
    simulation = PushTSimulation()
    simulation.set_state(initial_state(3))
    block = simulation.block
    expected = [
        block.local_to_world(vertex)
        for shape in simulation.block_shapes
        for vertex in shape.get_vertices()
    ]
    observed = OBSERVATIONS["environment_state"].compute(simulation.get_state())
    np.testing.assert_allclose(observed.reshape(8, 2), expected, rtol=1e-6)


def test_vertices_are_the_corners_of_bar_then_stem():
    assert VERTICES.tolist() == [
        *([-60, 0], [60, 0], [60, 30], [-60, 30]),
        *([-15, 30], [15, 30], [15, 120], [-15, 120]),
    ]


@pytest.mark.parametrize("name", LOW_DIM)
def test_low_dim_observations_map_leading_axes(name):
    states = np.stack([initial_state(seed) for seed in range(6)]).reshape(2, 3, 5)
    space, compute = OBSERVATIONS[name]
    observed = compute(states)
    assert observed.dtype == np.float32
    assert observed.shape == (2, 3, *space.shape)
    for index in np.ndindex(2, 3):
        np.testing.assert_array_equal(observed[index], compute(states[index]))
        assert observed[index] in space


@pytest.mark.parametrize("name", LOW_DIM)
def test_observing_leaves_the_state_alone(name):
    state = initial_state(0)
    before = state.copy()
    OBSERVATIONS[name].compute(state)
    np.testing.assert_array_equal(state, before)


@pytest.mark.parametrize("angle", [-7.0, -0.5, 0.0, 3.0, 6.5, 40.0])
def test_state_wraps_the_angle(angle):
    wrapped = OBSERVATIONS["state"].compute(np.array([1, 2, 3, 4, angle]))
    np.testing.assert_array_equal(wrapped[:4], [1, 2, 3, 4])
    assert 0 <= wrapped[4] < 2 * math.pi
    assert math.cos(wrapped[4]) == pytest.approx(math.cos(angle), abs=1e-6)
    assert math.sin(wrapped[4]) == pytest.approx(math.sin(angle), abs=1e-6)
