import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_env import SIZE, ToyEnv

from diffusion_policy.gym_util.env_slot import EnvSlot, success_of
from diffusion_policy.gym_util.video_writer import read_video
from diffusion_policy.util.errors import UserError

offsets = st.sets(st.integers(-12, 0), min_size=1).map(lambda times: tuple(sorted(times)))


def test_starts_with_the_first_observation_at_every_time():
    slot = EnvSlot(ToyEnv(), (-10, -1, 0))
    slot.reset(seed=4)
    first, _ = ToyEnv().reset(seed=4)
    for observation in slot.observations():
        np.testing.assert_equal(observation, first)


@settings(deadline=None, max_examples=60)
@given(
    obs_offsets=offsets,
    seed=st.integers(0, 1000),
    max_steps=st.integers(1, 25),
    chunk_sizes=st.lists(st.integers(1, 8), min_size=1, max_size=8),
)
def test_equals_a_plain_loop(obs_offsets, seed, max_steps, chunk_sizes):
    actions = np.random.default_rng(seed).uniform(0, SIZE, (sum(chunk_sizes), 2))
    slot = EnvSlot(gym.wrappers.TimeLimit(ToyEnv(), max_steps), obs_offsets)
    slot.reset(seed)

    env = ToyEnv()
    first, _ = env.reset(seed=seed)
    images, positions = [first["image"].copy()], [first["position"].copy()]
    rewards, successes = [], []
    done, begin = False, 0
    for size in chunk_sizes:
        chunk, begin = actions[begin : begin + size], begin + size
        slot.step(chunk)
        for action in chunk:
            if not done:
                observation, reward, terminated, _, info = env.step(action)
                images.append(observation["image"].copy())
                positions.append(observation["position"].copy())
                rewards.append(reward)
                successes.append(info["success"])
                done = terminated or len(rewards) == max_steps
        now = len(rewards)
        for offset, observation in zip(obs_offsets, slot.observations(), strict=True):
            np.testing.assert_array_equal(observation["image"], images[max(0, now + offset)])
            np.testing.assert_array_equal(observation["position"], positions[max(0, now + offset)])
        assert (slot.done, slot.length) == (done, now)
        assert slot.sum_reward == sum(rewards)
        assert slot.max_reward == max(rewards)
        assert slot.best_step == rewards.index(max(rewards)) + 1
        assert slot.success == any(successes)


def test_stays_as_it_is_after_the_end():
    slot = EnvSlot(gym.wrappers.TimeLimit(ToyEnv(), 3), (-1, 0))
    slot.reset(seed=0)
    slot.step(np.zeros((5, 2)))
    before = slot.observations()
    slot.step(np.ones((5, 2)))
    assert (slot.length, slot.done) == (3, True)
    np.testing.assert_array_equal(slot.observations()[1]["position"], before[1]["position"])


def test_counts_a_success_before_the_end():
    class SucceedsOnce(ToyEnv):
        def step(self, action):
            observation, *_ = super().step(action)
            return observation, 0.5, False, self.steps == 4, {"success": self.steps == 2}

    slot = EnvSlot(SucceedsOnce(), (0,))
    slot.reset(seed=0)
    slot.step(np.zeros((4, 2)))
    assert slot.success
    assert slot.done


@pytest.mark.parametrize("value", [True, np.True_, np.array(True)])
@pytest.mark.parametrize("key", ["success", "is_success"])
def test_a_bool_tells_success(key, value):
    assert success_of({key: value}) is True
    assert success_of({key: ~value if value is not True else False}) is False


@pytest.mark.parametrize(
    "info", [{}, {"success": 1.0}, {"success": 1}, {"success": {"task": True}}, {"success": None}]
)
def test_anything_else_does_not_tell_success(info):
    class Says(ToyEnv):
        def step(self, action):
            return *super().step(action)[:4], info

    slot = EnvSlot(Says(), (0,))
    slot.reset(seed=0)
    slot.step(np.zeros((2, 2)))
    assert (slot.tells_success, slot.success) == (False, False)


@pytest.mark.parametrize("reward", [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_not_finite_is_told(reward):
    class Breaks(ToyEnv):
        def step(self, action):
            observation, _, *rest = super().step(action)
            return observation, reward if self.steps == 2 else 0.5, *rest

    slot = EnvSlot(Breaks(), (0,))
    slot.reset(seed=0)
    with pytest.raises(UserError, match=f"reward of step 2 is {reward}"):
        slot.step(np.zeros((3, 2)))


def test_records_every_frame_of_the_episode(tmp_path):
    path = tmp_path / "videos" / "episode.mp4"
    slot = EnvSlot(gym.wrappers.TimeLimit(ToyEnv(), 6), (0,))
    slot.reset(seed=0, video_path=str(path))
    slot.step(np.full((4, 2), SIZE))
    assert not path.exists()  # only a complete episode gets its name
    slot.step(np.full((4, 2), SIZE))
    brightness = read_video(path).mean(axis=(1, 2, 3))
    # The frame after reset, and one for each step.
    np.testing.assert_allclose(brightness, 10 * np.arange(7), atol=3)


@pytest.mark.parametrize("picture", [None, np.zeros((4, 4)), np.zeros((4, 4, 3)), "a picture"])
def test_an_environment_must_draw_what_is_recorded(tmp_path, picture):
    class Draws(ToyEnv):
        def render(self):
            return picture

    with pytest.raises(UserError, match=r"render\(\) of the environment gives .*--n-videos 0"):
        EnvSlot(Draws(), (0,)).reset(seed=0, video_path=str(tmp_path / "episode.mp4"))


@pytest.mark.parametrize("interrupt", ["reset", "close"])
def test_an_unfinished_recording_leaves_no_file(tmp_path, interrupt):
    slot = EnvSlot(ToyEnv(), (0,))
    slot.reset(seed=0, video_path=str(tmp_path / "episode.mp4"))
    slot.step(np.zeros((2, 2)))
    slot.reset(seed=1) if interrupt == "reset" else slot.close()
    assert list(tmp_path.iterdir()) == []
