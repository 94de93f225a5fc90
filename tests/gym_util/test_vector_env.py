import gc
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from toy_env import SIZE, ToyEnv

from diffusion_policy.gym_util.vector_env import VectorEnv, WorkerError, _Watch
from diffusion_policy.gym_util.video_writer import read_video
from diffusion_policy.spec.start import Start
from diffusion_policy.util.errors import UserError
from tests.processes import started

ROOT = Path(__file__).parents[2]
TOYS = ROOT / "tests" / "toys"
TOY = {"factory": "toy_env:make"}


def starts(*seeds):
    return [Start.of_seed("test", seed) for seed in seeds]


def bad_toy(failure, bad_seed=14):
    return {"factory": "toy_env:make", "kwargs": {"bad_seed": bad_seed, "failure": failure}}


def rollout(n_workers, n_steps=4):
    """Everything that five toy episodes of uneven lengths hand out, as bytes."""
    rng = np.random.default_rng(0)
    recorded = []
    with VectorEnv(
        TOY, 5, n_workers, obs_offsets=(-4, -1, 0), n_action_steps=3, max_steps=9
    ) as env:
        assert len(env.worker_pids) == n_workers
        env.reset(range(5), starts(7, 8, 9, 10, 11))
        slots = list(range(5))
        for _ in range(n_steps):
            totals = env.step(slots, rng.uniform(0, SIZE, (len(slots), 3, 2)))
            recorded += [value.tobytes() for value in vars(totals).values()]
            observed = env.observe(slots)
            recorded.append(observed.pop("instruction"))
            recorded += [value.tobytes() for value in observed.values()]
            if totals.done[0]:
                env.reset([slots[0]], starts(int(totals.length.sum())))
    return recorded


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_workers():
    one, two, three = rollout(1), rollout(2), rollout(3)
    assert one == two == three


@pytest.mark.slow
def test_rows_follow_the_slots_asked_for():
    env = ToyEnv()
    with VectorEnv(TOY, 4, 2, obs_offsets=(-1, 0)) as vector_env:
        vector_env.reset([3, 0], [5, *starts(6)])  # a number is a seed
        before = vector_env.observe([0, 3])["position"]
        vector_env.step([3], np.full((1, 1, 2), 2.0))
        after = vector_env.observe([0, 3])["position"]
    start_6 = env.reset(seed=6)[0]["position"].copy()
    start_5 = env.reset(seed=5)[0]["position"].copy()
    moved_5 = env.step(np.full(2, 2.0))[0]["position"]
    np.testing.assert_array_equal(before, [[start_6, start_6], [start_5, start_5]])
    np.testing.assert_array_equal(after, [[start_6, start_6], [start_5, moved_5]])


def test_a_shorter_chunk_executes_its_own_actions_only():
    with VectorEnv(TOY, 2, 1, n_action_steps=4) as env:
        env.reset([0, 1], starts(0, 1))
        env.step([0, 1], np.full((2, 4, 2), SIZE))
        assert env.step([0, 1], np.full((2, 2, 2), SIZE)).length.tolist() == [6, 6]


def test_a_start_may_give_the_state():
    with VectorEnv(TOY, 2, 1) as env:
        left = Start("corners", "left", 1, {"state": (1.0, 2.0, 3.0, 4.0)})
        env.reset([0, 1], [*starts(0), left])
        assert env.observe([1])["position"].tolist() == [[[1.0, 2.0]]]
        assert env.observe([1])["goal"].tolist() == [[[3.0, 4.0]]]


def test_a_start_that_the_environment_refuses_is_named():
    with VectorEnv(TOY, 2, 1) as env, pytest.raises(UserError) as caught:
        env.reset([0], [Start("corners", "left", 1, {"state": [0.0]})])
    assert str(caught.value) == "corners left: state has shape (1,); give 4 numbers"
    assert env.closed


@pytest.mark.slow
def test_text_is_that_of_the_latest_observation():
    state = {"state": [1.0, 5.0, 3.0, 5.0]}  # the goal is on the right, then passed
    with VectorEnv(TOY, 3, 2, obs_offsets=(-1, 0)) as env:
        env.reset([2, 0], [Start("test", "a", 0, state)] * 2)
        assert env.observe([0, 2])["instruction"] == ["go right", "go right"]
        env.step([0], np.full((1, 1, 2), SIZE))
        assert env.observe([2, 0])["instruction"] == ["go right", "go left"]
        env.configure((-1,), 1)
        env.reset([0], [Start("test", "a", 0, state)])
        env.step([0], np.full((1, 1, 2), SIZE))
        assert env.observe([0])["instruction"] == ["go right"]  # of a step ago


def test_text_that_is_too_long_is_not_cut_off():
    with (
        VectorEnv({"factory": "toy_env:make_talkative"}, 1, 1) as env,
        pytest.raises(WorkerError, match=r"'instruction' is longer than its space's 8: 'go right"),
    ):
        env.reset([0], starts(0))


@pytest.mark.slow
def test_another_window_is_served_by_the_same_workers():
    with VectorEnv(TOY, 4, 2) as env, VectorEnv(TOY, 4, 2, obs_offsets=(-3, 0)) as other:
        workers = env.worker_pids
        env.configure((-3, 0), n_action_steps=1)
        for each in (env, other):
            each.reset(range(4), starts(*range(4)))
            each.step(range(4), np.ones((4, 1, 2)))
        np.testing.assert_equal(env.observe(range(4)), other.observe(range(4)))
        assert env.worker_pids == workers
        env.configure((0,), n_action_steps=2)
        with pytest.raises(ValueError, match="reset it first"):
            env.step([0], np.zeros((1, 2, 2)))


def test_a_slot_is_reset_before_it_is_stepped():
    with VectorEnv(TOY, 2, 1) as env:
        env.reset([0], starts(0))
        with pytest.raises(ValueError, match="reset it first"):
            env.step([0, 1], np.zeros((2, 1, 2)))


@pytest.mark.slow
def test_rejects_offsets_it_cannot_serve():
    for obs_offsets in [(0, -1), (-1, 1)]:
        with pytest.raises(ValueError, match="obs_offsets"):
            VectorEnv(TOY, 1, 1, obs_offsets=obs_offsets)


@pytest.mark.slow
def test_a_wrong_description_is_told_in_one_line():
    with pytest.raises(UserError, match="not registered"):
        VectorEnv({"id": "Nowhere-v0"}, 2)


@pytest.mark.slow
def test_records_only_what_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with VectorEnv(TOY, 3, 2, max_steps=4) as env:
        monkeypatch.chdir("/")  # relative paths mean the caller's folder, not the worker's
        env.reset([0, 1, 2], starts(0, 1, 2), [None, tmp_path / "one.mp4", None])
        for _ in range(4):
            env.step([0, 1, 2], np.zeros((3, 1, 2)))
    assert [path.name for path in tmp_path.iterdir()] == ["one.mp4"]
    assert len(read_video(tmp_path / "one.mp4")) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ("raise", r"raised ArithmeticError: the toy broke \(.*toy_env\.py, line \d+\)$"),
        ("hang", r"has not answered for 0\.5 s.*timeout_s$"),
        ("exit", "exited with code 7"),
        ("kill", "killed by SIGKILL"),
    ],
)
def test_a_failing_environment_is_named(failure, reason):
    env = VectorEnv(bad_toy(failure), 5, 2)
    env.reset(range(5), starts(*range(10, 15)))
    env._timeout_s = 0.5  # building may take longer
    with pytest.raises(WorkerError) as caught:  # noqa: PT012
        for _ in range(3):
            env.step(range(5), np.zeros((5, 1, 2)))
    assert re.search(rf"slot 4 \(seed 14\) .*{reason}", str(caught.value))
    notes = "".join(getattr(caught.value, "__notes__", []))
    assert ("Traceback" in notes) == (failure == "raise")
    assert env.worker_pids == []
    with pytest.raises(ValueError, match="closed"):
        env.step(range(5), np.zeros((5, 1, 2)))


@pytest.mark.slow
def test_a_worker_killed_between_steps_is_noticed():
    with VectorEnv(TOY, 4, 2) as env:
        env.reset(range(4), starts(*range(4)))
        os.kill(env.worker_pids[1], signal.SIGKILL)
        with pytest.raises(WorkerError, match=r"slot 3 \(seed 3\).*SIGKILL"):
            env.step(range(4), np.zeros((4, 1, 2)))


@pytest.mark.slow
def test_a_worker_that_stands_still_is_ended():
    env = VectorEnv(TOY, 2, 2)
    env.reset(range(2), [7, 8])
    env._timeout_s = 0.5
    workers = env.worker_pids
    os.kill(workers[1], signal.SIGSTOP)
    with pytest.raises(WorkerError, match=r"slot 1 \(seed 8\) has not answered"):
        env.step(range(2), np.zeros((2, 1, 2)))
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_time_limit_is_for_each_step(monkeypatch):
    n_begun, now = np.zeros(3, int), 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watch = _Watch(n_begun, 10)
    for _ in range(5):
        now += 9
        n_begun[:2] += 1
        assert watch.late([0, 1]) is None
    assert watch.late([0, 1, 2]) == 2
    now += 11
    assert watch.late([1]) == 1


def test_failing_to_build_is_reported():
    with pytest.raises(WorkerError, match=r"slot 0 \(no episode yet\) raised Runtime.*be built"):
        VectorEnv({"factory": "toy_env:make_broken"}, 1, 1)


@pytest.mark.parametrize("env_id", ["diffusion_policy/PushT-v0", "diffusion_policy/PushTImage-v0"])
def test_workers_never_import_torch(env_id):
    spec = {"factory": "toy_env:make_observer_of_modules", "kwargs": {"env_id": env_id}}
    with VectorEnv(spec, 1, 1) as env:
        env.reset([0], starts(0))
        env.step([0], np.zeros((1, 1, 2)))
        assert env.observe([0])["obs"].tolist() == [[[0.0]]]


@pytest.mark.slow
def test_close_releases_everything_and_may_be_repeated():
    def open_descriptors():
        gc.collect()
        return len(os.listdir("/dev/fd"))  # noqa: PTH208

    before = open_descriptors()
    env = VectorEnv(TOY, 3, 2)
    env.reset([0, 1, 2], starts(0, 1, 2))
    assert open_descriptors() > before
    env.close()
    env.close()
    del env
    assert open_descriptors() == before


SCRIPT = """
import numpy as np
from diffusion_policy.gym_util.vector_env import VectorEnv
from diffusion_policy.spec.start import Start

if __name__ != "__main__":
    raise SystemExit("a worker imported the parent's main module")
env = VectorEnv({spec}, 4, 2)
env.reset(range(4), [Start.of_seed('test', seed) for seed in range(11, 15)])
if {announces}:
    print("ready", flush=True)
while {forever}:
    env.step(range(4), np.zeros((4, 1, 2)))
"""


@contextmanager
def script(tmp_path, spec, announces=True, forever=True):
    """A script at work whose workers inherit its standard error.

    The script, or the environment in its worker, announces when the script is ready for a signal.
    """
    parent = tmp_path / "parent.py"
    parent.write_text(SCRIPT.format(spec=spec, announces=announces, forever=forever))
    with started(
        [sys.executable, "-W", "error", parent],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TOYS), str(ROOT)])},
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("failure", [None, "hang"])
def test_workers_end_with_their_parent(tmp_path, number, failure):
    with script(tmp_path, bad_toy(failure), announces=failure != "hang") as process:
        process.send_signal(number)
        # Returns when the last holder of standard error is gone; a lost worker would be a timeout.
        _, errors = process.communicate(timeout=30)
    assert process.returncode == -number
    assert not re.search("leak|resource_tracker|Warning", errors), errors


@pytest.mark.slow
@pytest.mark.parametrize("failure", ["raise", "kill"])
def test_a_failure_ends_the_program_with_an_error(tmp_path, failure):
    with script(tmp_path, bad_toy(failure)) as process:
        _, errors = process.communicate(timeout=30)
    assert "WorkerError: the environment in slot 3 (seed 14)" in errors
    assert not re.search("leak|resource_tracker|Warning", errors), errors


@pytest.mark.slow
def test_forgetting_to_close_leaves_nothing(tmp_path):
    with script(tmp_path, TOY, forever=False) as process:
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
