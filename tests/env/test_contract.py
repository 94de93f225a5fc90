"""What every environment of the package must do; a new one joins by being registered."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import diffusion_policy.env  # noqa: F401 - registers the environments

IDS = sorted(name for name in gymnasium.registry if name.startswith("diffusion_policy/"))


@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space")
@pytest.mark.parametrize("env_id", IDS)
def test_gymnasium_finds_no_fault(env_id, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    check_env(gymnasium.make(env_id).unwrapped)


@pytest.mark.parametrize("env_id", IDS)
def test_an_episode_follows_from_its_seed_and_actions(env_id):
    def play():
        env = gymnasium.make(env_id)
        env.action_space.seed(0)
        played = [env.reset(seed=3)[0]]
        for _ in range(5):
            observation, *_, info = env.step(env.action_space.sample())
            played.append(observation)
            assert isinstance(info["success"], bool | np.bool_)
        env.close()
        return played

    for first, second in zip(play(), play(), strict=True):
        assert gymnasium.utils.env_checker.data_equivalence(first, second, exact=True)


def test_registering_imports_no_simulator():
    code = """
import sys
import diffusion_policy.env
assert not {"pymunk", "cv2", "pygame", "torch"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
