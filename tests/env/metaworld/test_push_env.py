"""The push task: what it observes, its expert, and several cameras in one process."""

import importlib
import subprocess
import sys

import numpy as np
import pytest

from diffusion_policy.env.metaworld.push_expert import push_action
from diffusion_policy.util.errors import UserError

INSTALLED = importlib.util.find_spec("metaworld") is not None
needs_metaworld = pytest.mark.skipif(not INSTALLED, reason="the metaworld extra is not installed")


def make():
    from diffusion_policy.env.metaworld.push_env import PushEnv

    return PushEnv(render_mode="rgb_array", render_size=64)


def expert(observation, info):
    return push_action(observation["gripper_pos"], info["puck_pos"], info["goal_pos"])


@needs_metaworld
@pytest.mark.slow
def test_the_expert_pushes_the_puck_to_its_goal():
    env = make()
    for seed in range(3):
        observation, info = env.reset(seed=seed)
        before, success, steps = info["puck_pos"], False, 0
        while not success and steps < 150:
            observation, reward, success, _, info = env.step(expert(observation, info))
            steps += 1
        assert success
        assert reward == 1
        assert np.linalg.norm(info["puck_pos"] - info["goal_pos"]) < 0.05
        assert np.linalg.norm(info["puck_pos"] - before) > 0.1
    env.close()


@needs_metaworld
@pytest.mark.slow
def test_two_environments_do_not_draw_into_each_other():
    first, second = make(), make()
    alone = first.reset(seed=1)[0]["image"].copy()
    other = second.reset(seed=2)[0]["image"]
    assert not np.array_equal(alone, other)
    assert np.array_equal(first.reset(seed=1)[0]["image"], alone)
    second.render()
    second.close()
    assert np.array_equal(first.reset(seed=1)[0]["image"], alone)
    first.close()


@needs_metaworld
@pytest.mark.slow
def test_the_picture_is_the_right_way_up():
    env = make()
    env.reset(seed=0)
    up, down = (np.zeros(3) for _ in range(2))
    up[2], down[2] = 1, -1
    rows = []
    for motion in (up, down):
        for _ in range(25):
            observation, *_ = env.step(motion)
        red = observation["image"].astype(int)
        # The arm alone is red: less of it is below when the gripper is higher.
        arm = (red[0] > 120) & (red[1] < 60) & (red[2] < 60)
        rows.append(np.argwhere(arm)[:, 0].mean())
    assert rows[0] < rows[1]
    env.close()


@needs_metaworld
@pytest.mark.slow
@pytest.mark.parametrize("action", [np.zeros(4), np.array([0, np.nan, 0])])
def test_actions_that_are_no_motion_are_refused(action):
    env = make()
    env.reset(seed=0)
    with pytest.raises(UserError, match="push takes three finite numbers"):
        env.step(action)
    env.close()


@needs_metaworld
@pytest.mark.slow
def test_torchvision_can_be_imported_after_a_picture():
    code = """
from diffusion_policy.env.metaworld.push_env import PushEnv
PushEnv().reset(seed=0)
import torchvision, torch
torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))]).step()
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_without_metaworld_one_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "metaworld", None)
    monkeypatch.delitem(sys.modules, "metaworld.env_dict", raising=False)
    with pytest.raises(UserError, match=r"push needs metaworld, .*policy\[metaworld\]"):
        make()


def test_the_expert_goes_behind_the_puck_first_and_then_ahead():
    puck, goal = np.array([0.0, 0.65, 0.02]), np.array([0.0, 0.85, 0.02])
    above = push_action(np.array([0.05, 0.7, 0.12]), puck, goal)
    assert above[0] < 0
    assert above[1] < 0
    behind = push_action(np.array([0.0, 0.58, 0.05]), puck, goal)
    np.testing.assert_allclose(behind, [0, 1, 0], atol=1e-6)
    beside = push_action(np.array([0.03, 0.65, 0.05]), puck, goal)
    assert beside[2] > 0.5  # up, not through the puck
