"""The model of pushing that the expert plans with."""

import numpy as np
import pytest

from diffusion_policy.env.pusht.expert import pushing
from diffusion_policy.env.pusht.simulation import PushTSimulation


def test_motion_to_goal_inverts_moved():
    pose = pushing.GOAL + np.random.default_rng(0).uniform(-1, 1, (50, 3)) * (200, 200, 3.1)
    reached = pushing.moved(pose, pushing.motion_to_goal(pose))
    np.testing.assert_allclose(reached, np.broadcast_to(pushing.GOAL, (50, 3)), atol=1e-9)


@pytest.mark.parametrize("face", range(len(pushing.FACES)))
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_push_moves_the_block_along_the_predicted_arc(face, share):
    low, high = pushing.FACE_LOW[face], pushing.FACE_HIGH[face]
    face, s = np.array(face), np.array(low + share * (high - low))
    start = pushing.cog_pose(256.0, 256.0, 1.0)
    simulation = PushTSimulation()
    agent = pushing.to_world(pushing.contact(face, s), start)
    simulation.set_state(np.array([*agent, 256.0, 256.0, 1.0]), legacy=False)
    distance = 40.0
    for advance in [*np.arange(1.0, distance + 1), *[distance] * 10]:
        pose = pushing.moved(start, pushing.twist(face, s) * advance)
        simulation.step(pushing.to_world(pushing.contact(face, s), pose))
    reached = pushing.cog_pose(*simulation.get_state()[2:])
    np.testing.assert_allclose(reached[:2], pose[:2], atol=1.0)
    np.testing.assert_allclose(reached[2], pose[2], atol=0.02)
