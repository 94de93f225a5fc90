from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.env.pusht.mirror import Mirror
from diffusion_policy.env.pusht.observations import OBSERVATIONS
from diffusion_policy.env.pusht.pusht_env import PushTEnv
from diffusion_policy.env.pusht.simulation import GOAL_POSE
from diffusion_policy.util.errors import UserError

LOW_DIM = [key for key in OBSERVATIONS if key != "image"]
coordinates = st.floats(0, 512)
states = st.tuples(*[coordinates] * 4, st.floats(0, 2 * math.pi)).map(np.array)
mirror = Mirror()


@pytest.mark.parametrize("key", LOW_DIM)
@given(state=states)
def test_what_is_observed_in_the_mirror_is_the_mirrored_observation(key, state):
    compute = OBSERVATIONS[key].compute
    mirrored = mirror(key, compute(state))
    expected = compute(mirror("state", state))
    assert mirrored.dtype == np.float32
    difference = np.abs(mirrored - expected)
    if key == "state":  # the angle is on a circle
        difference[4] = min(difference[4], 2 * math.pi - difference[4])
    assert difference.max() < 1e-3
    twice = mirror(key, mirrored)
    np.testing.assert_allclose(twice[:4], compute(state)[:4], atol=1e-3)


def test_the_image_of_the_mirrored_state_is_the_flipped_image():
    state = np.array([120.0, 300, 200, 330, 0.4])
    compute = OBSERVATIONS["image"].compute
    flipped, drawn = mirror("image", compute(state)), compute(mirror("state", state))
    # Outlines may fall on the next pixel.
    assert np.mean(np.abs(flipped.astype(int) - drawn) > 20) < 0.01
    unlike = np.mean(np.abs(compute(state).astype(int) - drawn) > 20)
    assert unlike > 0.03


def test_the_goal_is_its_own_mirror_image():
    state = np.array([0, 0, *GOAL_POSE])
    np.testing.assert_allclose(mirror("state", state)[2:], GOAL_POSE)


def test_the_mirrored_world_moves_as_ours_does():
    rng = np.random.default_rng(3)
    state = np.array([100.0, 300, 200, 330, 0.4])
    envs = [PushTEnv(obs=["state"], legacy=False), PushTEnv(obs=["state"], legacy=False)]
    ours, theirs = (
        env.reset(options={"state": start})[0]["state"]
        for env, start in zip(envs, (state, mirror("state", state)), strict=True)
    )
    start = ours
    for _ in range(12):  # towards the block and into it
        action = ours[2:4] + rng.uniform(-20, 20, 2)
        ours, reward, *_ = envs[0].step(action)
        theirs, mirrored_reward, *_ = envs[1].step(mirror("action", action))
        ours, theirs = ours["state"], theirs["state"]
        assert mirrored_reward == pytest.approx(reward, abs=0.02)
    pushed = np.abs(ours - start)[2:4].max()
    assert pushed > 50
    # Contacts are solved in another order, and small differences grow.
    assert np.abs(mirror("state", theirs) - ours).max() < 0.1 * pushed


def test_what_cannot_be_mirrored_is_named():
    with pytest.raises(UserError, match=r"PushT has no observation 'gripper' to mirror"):
        mirror("gripper", np.zeros(2))
