"""What every environment promises. A new one joins by being listed in ``ENVIRONMENTS``."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest

from diffusion_policy.gym_util.make_env import make_env
from diffusion_policy.gym_util.spaces import describe_spaces
from diffusion_policy.gym_util.vector_env import VectorEnv
from diffusion_policy.spec.start import Start


class Listed(NamedTuple):
    """An environment as a task's config describes it.

    ``options`` are those of a start with a given state, None where the environment has none.
    """

    spec: Mapping[str, Any]
    options: Mapping[str, Any] | None = None


PUSHT = {"state": [100.0, 400.0, 250.0, 300.0, 1.0]}
ENVIRONMENTS = {
    "pusht": Listed({"id": "diffusion_policy/PushT-v0"}, PUSHT),
    "pusht, several observations": Listed(
        {"id": "diffusion_policy/PushT-v0", "kwargs": {"obs": ["image", "agent_pos"]}}, PUSHT
    ),
    "pusht keypoints": Listed({"id": "diffusion_policy/PushTKeypoints-v0"}, PUSHT),
    "pusht lerobot": Listed(
        {"id": "diffusion_policy/PushTKeypoints-v0", "kwargs": {"keypoints": "lerobot"}}, PUSHT
    ),
    "pusht image": Listed({"id": "diffusion_policy/PushTImage-v0"}, PUSHT),
    "push": Listed({"id": "diffusion_policy/Push-v0"}),
    "toy": Listed({"factory": "toy_env:make"}, {"state": [1.0, 2.0, 9.0, 7.0]}),
}


# The package that an environment needs, and that may be absent.
NEEDS = {"push": "metaworld"}


def skip_without(package: str) -> None:
    # Not importorskip: an environment chooses how to draw before MuJoCo is imported.
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def params() -> list:
    """The environments; those of a simulator take seconds to make."""
    marks = [pytest.mark.slow]
    return [
        pytest.param(listed, id=name, marks=marks if name in NEEDS else [])
        for name, listed in ENVIRONMENTS.items()
    ]


@pytest.fixture(params=params())
def listed(request):
    for name, package in NEEDS.items():
        if request.param is ENVIRONMENTS[name]:
            skip_without(package)
    return request.param


@pytest.fixture
def env(listed):
    env = make_env(listed.spec, max_steps=5)
    yield env
    env.close()


def actions(env, n=4):
    env.action_space.seed(3)
    return [env.action_space.sample() for _ in range(n)]


def play(env, seed, options=None):
    """Copies of everything that an episode of a few steps hands out."""
    observation, _ = env.reset(seed=seed, options=options)
    handed_out = [copied(observation)]
    for action in actions(env):
        observation, *totals, _ = env.step(action)
        handed_out.append((copied(observation), totals))
    return handed_out


def copied(observation):
    if isinstance(observation, Mapping):
        return {key: copied(value) for key, value in observation.items()}
    return observation if isinstance(observation, str) else np.array(observation)


def test_steps_are_of_the_types_that_the_spaces_say(env):
    assert describe_spaces(env).action.shape
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert isinstance(info, dict)
    for action in actions(env):
        observation, reward, terminated, truncated, info = env.step(action)
        assert env.observation_space.contains(observation)
        assert np.isfinite(float(reward))
        assert {type(terminated), type(truncated)} <= {bool, np.bool_}
        assert isinstance(info["success"], bool | np.bool_)


def test_an_episode_follows_from_start_and_actions(env, listed):
    for options in (None, listed.options):
        first = play(env, 7, options)
        play(env, 8)  # which must leave no trace
        np.testing.assert_equal(play(env, 7, options), first)


def test_seeds_differ(env):
    with pytest.raises(AssertionError):
        np.testing.assert_equal(play(env, 8), play(env, 7))


def test_a_given_state_decides_instead_of_the_seed(env, listed):
    if listed.options is None:
        pytest.skip("begins from seeds alone")
    first = play(env, 7, listed.options)
    np.testing.assert_equal(play(env, 8, listed.options), first)
    with pytest.raises(AssertionError):
        np.testing.assert_equal(play(env, 7), first)


def test_frames_are_images(env):
    env.reset(seed=0)
    frame = env.render()
    assert (frame.dtype, frame.ndim, frame.shape[2]) == (np.uint8, 3, 3)


def test_workers_hand_over_what_the_environment_observes(env, listed):
    start = Start("test", "given", 3, listed.options)
    with VectorEnv(listed.spec, 1, 1, max_steps=5) as vector_env:
        vector_env.reset([0], [start])
        assert vector_env.spaces == describe_spaces(env)
        observed, expected = vector_env.observe([0]), env.reset(seed=3, options=start.options)[0]
    named = expected if isinstance(expected, Mapping) else {"obs": expected}
    assert observed.keys() == named.keys()
    for key, value in named.items():
        found = observed[key][0] if isinstance(value, str) else observed[key][0, 0]
        np.testing.assert_array_equal(found, value)
