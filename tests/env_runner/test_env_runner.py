import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_env import SHAPE_META, SIZE
from toy_policy import GoalPolicy

from diffusion_policy.agent.local import LocalAgent
from diffusion_policy.env_runner.env_runner import EnvRunner, _share
from diffusion_policy.env_runner.episode import Episode
from diffusion_policy.gym_util.make_env import make_env
from diffusion_policy.gym_util.vector_env import VectorEnv, WorkerError
from diffusion_policy.gym_util.video_writer import read_video
from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.spec.start import Start
from diffusion_policy.spec.window import Window
from diffusion_policy.util.errors import UserError

TOY = {"factory": "toy_env:make"}


class RecordingPolicy(GoalPolicy):
    """Record every call."""

    def __init__(self, **options):
        super().__init__(**options)
        self.calls, self.resets = [], []

    def reset(self, env_ids=None, seeds=None):
        self.resets.append(list(env_ids))

    def predict_action(self, obs, env_ids=None):
        assert not self.training
        assert not torch.is_grad_enabled()
        assert (obs["position"].dtype, obs["image"].dtype) == (torch.float32, torch.uint8)
        assert obs["image"].shape == (len(env_ids), len(self.obs_offsets), 3, 4, 6)
        self.calls.append((list(env_ids), obs["image"][:, :, 0, 0, 0].tolist()))
        return super().predict_action(obs, env_ids)


def make_runner(env=TOY, **options):
    defaults = dict(n_train=2, n_test=5, n_envs=3, n_workers=1, max_steps=12, progress=False)
    return EnvRunner(env, SHAPE_META, **{**defaults, **options})


def test_every_seed_is_played_once_and_scored_as_by_a_plain_loop():
    with make_runner(test_start_seed=50) as runner:
        log = runner.run(LocalAgent(GoalPolicy()))
    assert [(e.episode_ix, e.start.group, e.start.seed) for e in runner.episodes] == [
        (0, "train", 0),
        (1, "train", 1),
        *((2 + i, "test", 50 + i) for i in range(5)),
    ]
    for episode in runner.episodes:
        env = make_env(TOY, 12)
        observation, _ = env.reset(seed=episode.start.seed)
        rewards, done, success = [], False, False
        while not done:
            goal = observation["goal"].astype(np.float32).astype(np.float64)
            observation, reward, terminated, truncated, info = env.step(goal)
            rewards.append(reward)
            success |= info["success"]
            done = terminated or truncated
        assert (episode.length, episode.success) == (len(rewards), success)
        assert (episode.sum_reward, episode.max_reward) == (sum(rewards), max(rewards))
        assert episode.best_step == rewards.index(max(rewards)) + 1

    test = runner.episodes[2:]
    assert log["test/mean_score"] == pytest.approx(np.mean([e.max_reward for e in test]))
    assert log["test/success_rate"] == np.mean([e.success for e in test])
    assert log["test/success_ci_low"] < log["test/success_rate"] <= log["test/success_ci_high"]
    for name in ("max_reward", "sum_reward", "success", "length"):
        logged = [log[f"test/sim_{name}_{50 + i}"] for i in range(5)]
        assert logged == [getattr(episode, name) for episode in test]
        assert all(type(value) in (int, float) for value in logged)
    assert not any("video" in key for key in log)
    json.dumps(log)


@pytest.mark.slow
@pytest.mark.parametrize("n_action_steps", [1, 4])
def test_results_do_not_depend_on_the_number_of_workers(n_action_steps):
    results = []
    for n_workers in (1, 2, 3):
        with make_runner(n_workers=n_workers) as runner:
            policy = RecordingPolicy(noise=SIZE, n_action_steps=n_action_steps)
            results.append((runner.run(LocalAgent(policy)), runner.episodes, policy.calls))
    assert results[0] == results[1] == results[2]


def test_a_slot_takes_the_next_seed_when_its_episode_ends():
    policy = RecordingPolicy(noise=2.0)
    with make_runner() as runner:
        runner.run(LocalAgent(policy))
    # Replay the rule on the lengths alone: in every step the free slots, lowest first, take the
    # next episodes, and the policy hears of it before it is asked about them.
    lengths = [episode.length for episode in runner.episodes]
    assert len(set(lengths)) > 1
    left, resets, calls = {}, [], []
    while lengths or left:
        starting = [slot for slot in range(3) if slot not in left][: len(lengths)]
        if starting:
            resets.append(starting)
            left |= {slot: lengths.pop(0) for slot in starting}
        calls.append(sorted(left))
        left = {slot: steps - 1 for slot, steps in left.items() if steps > 1}
    assert policy.resets == resets
    assert [slots for slots, _ in policy.calls] == calls


def test_hands_over_the_times_that_the_policy_wants():
    policy = RecordingPolicy(noise=SIZE, obs_offsets=(-3, -1, 0))
    with make_runner(n_train=0, n_test=1, n_envs=1) as runner:
        runner.run(LocalAgent(policy))
    # The toy's image shows the number of the step.
    for step, (_, images) in enumerate(policy.calls):
        assert images == [[max(0, step - 3), max(0, step - 1), step]]


@pytest.mark.slow
def test_leaves_the_policy_and_the_random_numbers_as_they_were():
    policy = GoalPolicy(noise=1.0).train()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with make_runner() as runner:
        first = runner.run(LocalAgent(policy))
        assert policy.training
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(10)
        workers = runner._env.worker_pids
        assert runner.run(LocalAgent(policy)) == first
        assert runner._env.worker_pids == workers  # they stay for the next run


def test_a_policy_with_another_window_is_served_by_the_same_workers():
    with make_runner() as runner:
        workers = runner._env.worker_pids
        runner.run(LocalAgent(GoalPolicy(obs_offsets=(0,))))
        runner.run(LocalAgent(GoalPolicy(obs_offsets=(-5, 0), n_action_steps=2)))
        assert len(runner.episodes) == 7
        assert runner._env.worker_pids == workers


@pytest.mark.slow
def test_records_the_first_episodes(tmp_path):
    with make_runner(n_train_vis=1, n_test_vis=2, output_dir=tmp_path) as runner:
        log = runner.run(LocalAgent(GoalPolicy()), label="epoch_0003")
        folder = tmp_path / "media" / "epoch_0003"
        recorded = [e for e in runner.episodes if e.video is not None]
        assert [(e.start.group, e.start.name) for e in recorded] == [
            ("train", "0"),
            ("test", "100000"),
            ("test", "100001"),
        ]
        assert {e.video for e in recorded} == set(folder.iterdir())
        for episode in recorded:
            outcome = "success" if episode.success else "failure"
            group, name = episode.start.group, episode.start.name
            assert episode.video.name == f"{group}_{name}_{outcome}.mp4"
            assert log[f"{group}/sim_video_{name}"] == str(episode.video)
            assert len(read_video(episode.video)) == episode.length + 1


@pytest.mark.slow
@pytest.mark.parametrize("n_action_steps", [1, 4])
def test_records_the_first_of_each_outcome(tmp_path, capsys, n_action_steps):
    options = dict(n_train=0, n_test=20, max_steps=6, n_test_vis=0)
    policy = GoalPolicy(noise=2.0, n_action_steps=n_action_steps)
    with make_runner(**options) as runner:
        runner.run(LocalAgent(policy))
        expected = runner.episodes
    # More of them than there are slots.
    with make_runner(**options, n_outcome_vis=2, output_dir=tmp_path) as runner:
        runner.run(LocalAgent(policy), label="a")
        assert runner.episodes == expected
        runner.record_outcomes()
    assert [replace(episode, video=None) for episode in runner.episodes] == expected
    chosen = [
        episode
        for outcome in (True, False)
        for episode in [episode for episode in expected if episode.success is outcome][:2]
    ]
    assert {episode.success for episode in chosen} == {True, False}
    recorded = [episode for episode in runner.episodes if episode.video is not None]
    assert {episode.start for episode in recorded} == {episode.start for episode in chosen}
    assert {episode.video for episode in recorded} == set((tmp_path / "media" / "a").iterdir())
    for episode in recorded:
        outcome = "success" if episode.success else "failure"
        assert episode.video.name == f"test_{episode.start.name}_{outcome}.mp4"
        # The toy's frames get brighter by the step.
        frames = read_video(episode.video)
        assert len(frames) == episode.length + 1
        assert frames.mean((1, 2, 3)) == pytest.approx(10 * np.arange(len(frames)), abs=3)
    assert "note:" not in capsys.readouterr().out


@pytest.mark.slow
def test_pictures_are_asked_for_before_training(tmp_path):
    blind = {**TOY, "kwargs": {"frame_shape": [0]}}
    options = dict(n_train=0, n_test=1, n_workers=1, progress=False)
    with pytest.raises(UserError, match=r"seed 100000: videos are asked for"):
        EnvRunner(blind, SHAPE_META, **options, n_test_vis=1, output_dir=tmp_path)
    with EnvRunner(blind, SHAPE_META, **options, n_test_vis=0, output_dir=tmp_path) as runner:
        assert "test/mean_score" in runner.run(LocalAgent(GoalPolicy()))


@pytest.mark.slow
def test_a_video_that_cannot_be_written_does_not_end_the_run(tmp_path, capfd):
    options = dict(n_train=0, n_test=2, n_test_vis=2, output_dir=tmp_path)
    (tmp_path / "media" / "a" / "test_100000.mp4.partial").mkdir(parents=True)
    with make_runner(**options) as runner:
        log = runner.run(LocalAgent(GoalPolicy()), label="a")
    first, second = runner.episodes
    assert first.video is None
    assert second.video.is_file()
    assert "test/sim_video_100000" not in log
    assert capfd.readouterr().err.count("warning: no video") == 1


@pytest.mark.slow
def test_no_video_passes_for_another_episode(tmp_path, capsys):
    forgetful = {"factory": "toy_env:make", "kwargs": {"seeded": False}}
    options = dict(n_train=0, n_test=3, n_test_vis=0, n_outcome_vis=3, n_workers=1)
    with EnvRunner(forgetful, SHAPE_META, **options, output_dir=tmp_path) as runner:
        runner.run(LocalAgent(GoalPolicy(noise=1.0)), label="a")
        runner.record_outcomes()
    assert all(episode.video is None and episode.length for episode in runner.episodes)
    assert list((tmp_path / "media" / "a").iterdir()) == []
    assert capsys.readouterr().out.count("note: no video of seed 10000") == 3


@pytest.mark.slow
def test_a_policy_may_write_into_its_last_answer(tmp_path):
    class Reusing(GoalPolicy):
        answer = torch.zeros(3, 1, 2)

        def predict_action(self, obs, env_ids=None):
            self.answer[: len(env_ids)] = super().predict_action(obs, env_ids)["action"]
            return {"action_pred": self.answer[: len(env_ids)]}

    options = dict(n_train=0, n_test=3, n_test_vis=0, n_outcome_vis=3, output_dir=tmp_path)
    with make_runner(**options) as runner:
        runner.run(LocalAgent(Reusing(noise=1.0)))
        runner.record_outcomes()
    assert all(episode.video is not None for episode in runner.episodes)


@pytest.mark.slow
def test_groups_of_starts_are_played_and_named(tmp_path):
    starts = [
        {"name": "near", "options": {"state": [5, 5, 5.2, 5]}},
        {"name": "far.away", "options": {"state": [0, 0, 10, 10]}},
    ]
    groups = {"corners": {"starts": starts, "n_vis": 2}, "fresh": {"start_seed": 7, "n": 2}}
    options = dict(n_train=0, n_test=1, n_test_vis=0, max_steps=3, output_dir=tmp_path)
    with make_runner(groups=groups, **options) as runner:
        log = runner.run(LocalAgent(GoalPolicy()), label="a")
    assert [episode.start.label for episode in runner.episodes] == [
        "seed 100000",
        "corners near",
        "corners far.away",
        "seed 7",
        "seed 8",
    ]
    assert log["corners/sim_success_near"] == 1
    assert log["corners/sim_success_far.away"] == 0
    assert log["corners/success_rate"] == 0.5
    # Three steps of a third of the way, as from any start.
    assert log["corners/sim_max_reward_far.away"] == pytest.approx(
        1 - np.sqrt(200) * (2 / 3) ** 3 / SIZE
    )
    assert {path.name for path in (tmp_path / "media" / "a").iterdir()} == {
        "corners_near_success.mp4",
        "corners_far.away_failure.mp4",
    }


@pytest.mark.slow
def test_outcomes_of_given_starts_are_recorded(tmp_path):
    starts = [{"name": "far", "options": {"state": [0, 0, 10, 10]}}]
    options = dict(n_train=0, n_test=0, max_steps=3, n_outcome_vis=1, output_dir=tmp_path)
    with make_runner(groups={"corners": {"starts": starts}}, **options) as runner:
        runner.run(LocalAgent(GoalPolicy()), label="a")
        runner.record_outcomes()
    assert [episode.video.name for episode in runner.episodes] == ["corners_far_failure.mp4"]


def test_two_groups_of_one_name_are_refused():
    with pytest.raises(UserError, match="two groups are named 'test': rename one, or use n_test=0"):
        make_runner(groups={"test": {"n": 3}})
    make_runner(n_test=0, groups={"test": {"n": 3}}).close()


class ObedientPolicy(BasePolicy):
    """Walk left or right, as the instruction says."""

    obs_types = ("low_dim", "text")

    def __init__(self):
        super().__init__(
            {
                "obs": {"position": {"shape": [2]}, "instruction": {"type": "text"}},
                "action": {"shape": [2]},
            }
        )
        self.window = Window(obs_offsets=(-1, 0), action_offsets=(0,))
        self.weight = torch.nn.Parameter(torch.ones(1))

    def compute_loss(self, batch):
        raise NotImplementedError

    def predict_action(self, obs, env_ids=None):
        assert len(obs["instruction"]) == len(env_ids)
        steps = torch.tensor([-3.0 if "left" in text else 3.0 for text in obs["instruction"]])
        action = obs["position"][:, -1:].clone()
        action[:, 0, 0] += steps
        return {"action_pred": action}


def test_a_policy_reads_text():
    policy = ObedientPolicy()
    options = dict(n_train=0, n_test=3, n_envs=2, n_workers=1, max_steps=8, progress=False)
    with EnvRunner(TOY, policy.shape_meta, **options) as runner:
        runner.run(LocalAgent(policy))
    for episode in runner.episodes:
        env, agent = make_env(TOY, 8), LocalAgent(policy)
        observation, _ = env.reset(seed=episode.start.seed)
        rewards, done = [], False
        while not done:
            towards_goal = observation["goal"][0] - observation["position"][0]
            action = agent.act(observation).action[0]
            assert (action[0] > observation["position"][0]) == (towards_goal >= 0)
            observation, reward, terminated, truncated, _ = env.step(action)
            rewards.append(reward)
            done = terminated or truncated
        assert (episode.sum_reward, episode.length) == (sum(rewards), len(rewards))


def test_no_environment_is_built_in_this_process():
    env = {"factory": "toy_env:make_elsewhere", "kwargs": {"pid": os.getpid()}}
    with EnvRunner(env, SHAPE_META, n_train=0, n_test=1, max_steps=2, progress=False) as runner:
        runner.run(LocalAgent(GoalPolicy()))


@given(st.integers(1, 30), st.integers(0, 30), st.integers(1, 5))
def test_processes_divide_the_episodes(n, n_recorded, n_processes):
    plan = [
        Episode(i, Start.of_seed("test", i), Path("x.mp4") if i < n_recorded else None)
        for i in range(n)
    ]
    shares = [_share(plan, rank, n_processes) for rank in range(n_processes)]
    assert sorted(episode.start.seed for share in shares for episode in share) == list(range(n))
    assert all(episode.video is None for share in shares[1:] for episode in share)
    assert max(map(len, shares)) <= max(n_recorded, -(-n // n_processes))


@pytest.mark.slow
def test_runs_without_a_label_do_not_overwrite_each_other(tmp_path):
    for _ in range(2):  # as after a restart
        with make_runner(n_train_vis=1, n_test_vis=0, output_dir=tmp_path) as runner:
            runner.run(LocalAgent(GoalPolicy()))
            runner.run(LocalAgent(GoalPolicy()))
    folders = sorted(path.name for path in (tmp_path / "media").iterdir())
    assert folders == [f"rollout_{number:04d}" for number in range(4)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("obs", "goal", "shape"), [3], r"obs\.goal\.shape is \[3\].*environment's is \[2\]"),
        (("obs", "image", "shape"), [3, 6, 4], r"obs\.image\.shape is \[3, 6, 4\].*\[3, 4, 6\]"),
        (("obs", "image", "type"), "low_dim", r"obs\.image\.type is 'low_dim'.*uint8"),
        (("obs", "speed"), {"shape": [1]}, "'speed'.*it observes position, goal, image"),
        (("obs", "goal"), {"type": "text"}, r"obs\.goal\.type is 'text'.*is float64"),
        (("obs", "instruction"), {"shape": [8]}, r"obs\.instruction\.type is 'low_dim'.*is text"),
        (("action", "shape"), [7], r"action\.shape is \[7\].*environment's is \[2\]"),
    ],
)
def test_a_mismatch_is_named_at_construction(path, value, message):
    shape_meta = json.loads(json.dumps(SHAPE_META))
    entry = shape_meta
    for key in path[:-1]:
        entry = entry[key]
    entry[path[-1]] = value
    with pytest.raises(UserError, match=message):
        EnvRunner(TOY, shape_meta)


def test_no_episodes_are_no_run():
    with pytest.raises(UserError, match="at least one episode"):
        make_runner(n_train=0, n_test=0)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda n: torch.zeros(n, 2), "predict_action of Broken does not return"),
        (lambda n: torch.zeros(n, 1, 3), "have shape"),
        (lambda n: torch.full((n, 1, 2), float("nan")), "not finite"),
    ],
)
def test_unusable_actions_stop_the_run(action, message):
    class Broken(GoalPolicy):
        def predict_action(self, obs, env_ids=None):
            return {"action_pred": action(len(env_ids))}

    with make_runner() as runner, pytest.raises(UserError, match=message):
        runner.run(LocalAgent(Broken()))


def test_an_observation_that_is_nan_stops_the_run_and_names_the_seed():
    env = {"factory": "toy_env:make", "kwargs": {"bad_seed": 100_001, "failure": "nan"}}
    with (
        make_runner(env=env) as runner,
        pytest.raises(UserError, match=r"observation 'goal' .* NaN .* of seed 100001"),
    ):
        runner.run(LocalAgent(GoalPolicy()))


def test_a_failing_environment_stops_the_run_and_restores_the_policy(tmp_path):
    env = {"factory": "toy_env:make", "kwargs": {"bad_seed": 100_002, "failure": "raise"}}
    policy = GoalPolicy(noise=SIZE)
    precious = tmp_path / "precious.txt"
    precious.write_text("precious")
    (tmp_path / "environment_error.txt").symlink_to(precious)
    with (
        EnvRunner(
            env,
            SHAPE_META,
            n_envs=2,
            n_workers=1,
            max_steps=5,
            output_dir=tmp_path,
            n_train_vis=0,
            n_test_vis=0,
            progress=False,
        ) as runner,
        pytest.raises(WorkerError, match=r"seed 100002.*the toy broke.*environment_error\.txt$"),
    ):
        runner.run(LocalAgent(policy))
    assert policy.training
    assert "in fail" in (tmp_path / "environment_error.txt").read_text()
    assert precious.read_text() == "precious"  # a run folder from somebody else may hold links


@pytest.mark.parametrize(("silent_from", "n_silent"), [(0, 5), (100_002, 3)])
def test_without_success_there_is_no_success_rate(capsys, silent_from, n_silent):
    env = {**TOY, "kwargs": {"silent_from": silent_from}}
    options = dict(n_train=0, n_test=5, n_workers=1, max_steps=6, progress=False)
    with EnvRunner(env, SHAPE_META, **options) as runner:
        log, again = (runner.run(LocalAgent(GoalPolicy())) for _ in range(2))
    assert log == again
    assert "test/mean_score" in log
    assert not any("success" in key for key in log if not key.endswith(("100000", "100001")))
    assert ("test/sim_success_100001" in log) == (n_silent == 3)
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 1
    assert f"did not tell the success of {n_silent} of 5 episodes" in told[0]


def test_there_are_no_more_slots_than_episodes():
    """A checkpoint may ask for any number."""
    with make_runner(n_train=0, n_test=2, n_envs=10**9) as runner:
        assert runner.n_envs == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"fps": 10.0},
        {"fps": 0},
        {"max_steps": 5.0},
        {"n_envs": 2.0},
        {"n_envs": True},
        {"n_workers": 0},
        {"n_test": "5"},
        {"n_test_vis": -1},
        {"test_start_seed": -1},
        {"test_start_seed": 2**32},
        {"policy_seed": 0.5},
        {"timeout_s": 0},
        {"timeout_s": "long"},
    ],
)
def test_settings_that_cannot_work_are_refused(settings):
    (name,) = settings
    with pytest.raises(UserError, match=name if settings != {"test_start_seed": 2**32} else "seed"):
        make_runner(**settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape_meta"),
    [
        ("PushT-v0", {"obs": {"keypoint": {"shape": [18]}, "agent_pos": {"shape": [2]}}}),
        ("PushT-v0", {"obs": {"image": {"shape": [3, 96, 96], "type": "rgb"}}}),
        ("PushTKeypoints-v0", {"obs": {"obs": {"shape": [20]}}}),
    ],
)
def test_pusht_runs(tmp_path, name, shape_meta):
    class Wanderer(BasePolicy):
        window = Window(obs_offsets=(-1, 0), action_offsets=tuple(range(8)))
        n_action_steps = 8
        device = torch.device("cpu")

        def compute_loss(self, batch):
            raise NotImplementedError

        def predict_action(self, obs, env_ids=None):
            return {"action_pred": 512 * torch.rand(len(env_ids), 8, 2)}

    shape_meta = {**shape_meta, "action": {"shape": [2]}}
    kwargs = {} if name == "PushTKeypoints-v0" else {"obs": list(shape_meta["obs"])}
    env = {"id": f"diffusion_policy/{name}", "kwargs": kwargs}
    with EnvRunner(
        env,
        shape_meta,
        n_train=1,
        n_train_vis=1,
        n_test=2,
        n_test_vis=0,
        max_steps=20,
        n_workers=1,
        output_dir=tmp_path,
        progress=False,
    ) as runner:
        log = runner.run(LocalAgent(Wanderer(shape_meta)))
    assert [episode.length for episode in runner.episodes] == [20, 20, 20]
    assert 0 <= log["test/mean_score"] < 1
    assert read_video(log["train/sim_video_0"]).shape == (21, 512, 512, 3)


class ClockPolicy(GoalPolicy):
    """Action k has the value k, the number of steps after its observation."""

    def __init__(self):
        super().__init__(n_action_steps=2, obs_offsets=(0,))
        self.window = Window(obs_offsets=(0,), action_offsets=tuple(range(6)))
        self.seen = []

    def predict_action(self, obs, env_ids=None):
        self.seen.append(int(obs["image"][0, 0, 0, 0, 0]))
        steps = torch.arange(6.0)[None, :, None].expand(len(env_ids), -1, 2)
        return {"action": steps[:, :2], "action_pred": steps}


def test_latency_makes_observations_old_and_skips_the_actions_in_between(monkeypatch):
    commands, step = [], VectorEnv.step

    def watched(self, slots, actions):
        commands.append(actions[0, :, 0].tolist())
        return step(self, slots, actions)

    monkeypatch.setattr(VectorEnv, "step", watched)
    policy = ClockPolicy()
    with make_runner(n_train=0, n_test=1, n_latency_steps=3, max_steps=8) as runner:
        runner.run(LocalAgent(policy))
    n_calls = len(policy.seen)
    assert n_calls >= 3
    # Now is step 0, 2, 4, ...; what is seen is three steps older, as far as there was anything.
    assert policy.seen == [max(0, 2 * call - 3) for call in range(n_calls)]
    assert commands == [[3.0, 4.0]] * n_calls


def test_latency_beyond_what_is_predicted_is_refused():
    with (
        make_runner(n_latency_steps=5) as runner,
        pytest.raises(UserError, match="n_latency_steps is 5; use at most 4"),
    ):
        runner.run(LocalAgent(ClockPolicy()))
