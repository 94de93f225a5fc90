"""PushT as a gymnasium environment."""

import math
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

import diffusion_policy.env  # noqa: F401 - registers the environments
from diffusion_policy.env.pusht.observations import OBSERVATIONS
from diffusion_policy.env.pusht.pusht_env import PushTEnv
from diffusion_policy.env.pusht.simulation import initial_state
from diffusion_policy.util.errors import UserError
from tests.reference import golden

AT_GOAL = [100, 100, 256, 256, math.pi / 4]


@pytest.fixture
def no_screen(monkeypatch):
    """Let windows open on SDL's dummy driver."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("seed", [7, 100000, 100001])
def test_trajectories_are_the_benchmarks(seed, legacy):
    reference = golden("pusht_env")
    episode = f"s{seed}_{'legacy' if legacy else 'new'}"
    env = PushTEnv(legacy=legacy)
    _, info = env.reset(seed=seed)
    states, rewards, ends = [info["state"]], [], []
    for action in reference[f"{episode}_actions"]:
        _, reward, terminated, truncated, info = env.step(action)
        assert not truncated
        states.append(info["state"])
        rewards.append(reward)
        ends.append(terminated)
    np.testing.assert_array_equal(states, reference[f"{episode}_state"])
    np.testing.assert_allclose(rewards, reference[f"{episode}_reward"], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(ends, reference[f"{episode}_done"])


def test_ids_observe_what_they_are_named_after():
    def space(name, **options):
        return gymnasium.make(f"diffusion_policy/{name}", **options).observation_space

    assert space("PushT-v0").shape == (5,)
    assert space("PushTKeypoints-v0").shape == (20,)
    assert set(space("PushTKeypoints-v0", keypoints="lerobot")) == {
        "environment_state",
        "agent_pos",
    }
    assert set(space("PushTImage-v0")) == {"image", "agent_pos"}
    assert space("PushTImage-v0", obs="image").shape == (3, 96, 96)
    assert space("PushTKeypoints-v0", obs="keypoint").shape == (18,)


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_observations_are_functions_of_the_state(name):
    env = PushTEnv((name, "agent_pos"))
    env.reset(seed=1)
    for _ in range(3):
        observation, *_, info = env.step(np.array([300, 200]))
        assert observation in env.observation_space
        np.testing.assert_array_equal(observation[name], OBSERVATIONS[name].compute(info["state"]))
        np.testing.assert_array_equal(info["agent_pos"], info["state"][:2])


def test_time_limit():
    env = gymnasium.make("diffusion_policy/PushT-v0")
    env.reset(seed=0)
    truncations = [env.step(np.array([20, 20]))[3] for _ in range(300)]
    assert truncations == [False] * 299 + [True]


def test_block_at_the_goal_succeeds():
    env = PushTEnv()
    _, info = env.reset(options={"state": AT_GOAL})
    assert not info["success"]  # the legacy order of writing the state moves the block
    env = PushTEnv(legacy=False)
    _, info = env.reset(options={"state": AT_GOAL})
    assert info["coverage"] == pytest.approx(1, abs=1e-12)
    _, reward, terminated, _, info = env.step(AT_GOAL[:2])
    assert (reward, terminated, info["success"]) == (1, True, True)


@pytest.mark.parametrize(("slide", "success"), [(2.5, True), (2.75, False)])
def test_success_needs_95_percent_of_the_goal(slide, success):
    # Slide the block along its bar: of the areas 120 x 30 and 30 x 90 the goal keeps all but
    # slide x 30 and slide x 90.
    x, y = 256 + slide * math.cos(math.pi / 4), 256 + slide * math.sin(math.pi / 4)
    env = PushTEnv(legacy=False)
    _, info = env.reset(options={"state": [100, 100, x, y, math.pi / 4]})
    coverage = 1 - slide * (30 + 90) / (120 * 30 + 30 * 90)
    assert info["coverage"] == pytest.approx(coverage, abs=1e-9)
    _, reward, terminated, _, info = env.step([100, 100])
    assert reward == pytest.approx(min(coverage / 0.95, 1), abs=1e-9)
    assert (terminated, info["success"]) == (success, success)


def test_reset_starts_from_the_seed_and_then_draws_on():
    env, twin = PushTEnv(legacy=False), PushTEnv(legacy=False)
    first, second = env.reset(seed=5)[1]["state"], env.reset()[1]["state"]
    np.testing.assert_array_equal(first[:2], initial_state(5)[:2])
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(twin.reset(seed=5)[1]["state"], first)
    np.testing.assert_array_equal(twin.reset()[1]["state"], second)


def test_reset_forgets_the_episode_before():
    env = PushTEnv()
    fresh = PushTEnv()
    env.reset(seed=0)
    for _ in range(40):  # leaves the agent pressed against the block
        env.step(env.simulation.block.local_to_world((0, 45)))
    for each in (env, fresh):
        each.reset(seed=9)
    for _ in range(20):
        target = fresh.simulation.block.local_to_world((0, 45))
        np.testing.assert_array_equal(env.step(target)[0], fresh.step(target)[0])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1, 2, 3], r"state has shape \(3,\): PushT takes 5 numbers"),
        ([[1, 2, 3, 4, 5]], r"state has shape \(1, 5\)"),
        ([1, 2, 3, 4, math.nan], r"state=\[1.0, 2.0, 3.0, 4.0, nan\] is not finite"),
    ],
)
def test_wrong_states_are_refused(state, message):
    with pytest.raises(UserError, match=message):
        PushTEnv().reset(options={"state": state})


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ([1, 2, 3], r"action has shape \(3,\): PushT takes 2 numbers"),
        ([[1, 2]], r"action has shape \(1, 2\)"),
        ([math.inf, 0], r"action=\[inf, 0.0\] is not finite"),
    ],
)
def test_wrong_actions_are_refused_before_they_act(action, message):
    env = PushTEnv()
    _, info = env.reset(seed=0)
    with pytest.raises(UserError, match=message):
        env.step(action)
    np.testing.assert_array_equal(env.simulation.get_state(), info["state"])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("PushT-v0", {"obs": "pixels"}, "obs='pixels' is not an observation"),
        ("PushT-v0", {"obs": ("state", "pixels")}, "obs='pixels' is not an observation"),
        ("PushT-v0", {"render_size": 0}, "render_size=0 cannot be drawn"),
        ("PushT-v0", {"render_size": 100_000}, "render_size=100000 cannot be drawn"),
        ("PushTKeypoints-v0", {"keypoints": "openpose"}, "keypoints='openpose' is unknown"),
    ],
)
def test_wrong_options_are_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        gymnasium.make(f"diffusion_policy/{name}", **options)


def test_unknown_render_mode_is_refused():
    with pytest.raises(UserError, match="render_mode='ansi' is unknown"):
        PushTEnv(render_mode="ansi")


def test_frames_show_the_last_action_and_observations_do_not():
    env = PushTEnv("image", render_mode="rgb_array", render_size=128)
    env.reset(seed=0)
    before = env.render()
    assert before.shape == (128, 128, 3)
    red = [255, 0, 0]
    assert not (before == red).all(-1).any()
    observation, *_ = env.step([400, 100])
    assert (env.render()[25, 100] == red).all()
    assert not (observation.transpose(1, 2, 0) == red).all(-1).any()


def test_human_mode_shows_every_step_in_a_window(no_screen):
    import pygame

    env = PushTEnv(render_mode="human", render_size=96)
    env.reset(seed=0)
    assert pygame.display.get_surface().get_size() == (96, 96)
    env.step([400, 100])
    shown = pygame.surfarray.array3d(pygame.display.get_surface())
    assert (shown == [255, 0, 0]).all(-1)[75, 18]
    env.close()
    assert pygame.display.get_surface() is None
    env.close()


@pytest.mark.slow
def test_workers_import_only_what_they_use():
    # Each of these costs a worker process tens to hundreds of megabytes.
    code = """
import sys
import gymnasium, diffusion_policy.env
env = gymnasium.make("diffusion_policy/PushT-v0")
env.step(env.reset(seed=0)[0][:2])
assert not {"torch", "pygame", "cv2", "zarr"} & sys.modules.keys()
gymnasium.make("diffusion_policy/PushTImage-v0").reset(seed=0)
assert not {"torch", "pygame", "zarr"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
