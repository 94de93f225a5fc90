import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.env.pusht.scenes import random_scenes
from diffusion_policy.env.pusht.simulation import GOAL_POSE


@given(st.integers(0, 300), st.integers(0, 2**32))
def test_the_agent_is_in_the_world_and_all_follows_from_the_seed(n, seed):
    scenes = random_scenes(n, np.random.default_rng(seed))
    assert scenes.shape == (n, 5)
    assert np.isfinite(scenes).all()
    assert ((scenes[:, :2] >= 0) & (scenes[:, :2] <= 512)).all()
    np.testing.assert_array_equal(scenes, random_scenes(n, np.random.default_rng(seed)))


def test_many_scenes_show_the_block_almost_at_the_goal():
    scenes = random_scenes(2000, np.random.default_rng(0))
    off = np.abs(scenes[:, 2:] - GOAL_POSE)
    near = (off[:, :2] < 30).all(1) & (off[:, 2] < 0.5)
    assert 0.15 < near.mean() < 0.4
