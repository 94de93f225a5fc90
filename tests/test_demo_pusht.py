"""Recording PushT demonstrations: a scripted operator moves the mouse and presses keys."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pygame
import pytest

from demo_pusht import Teleoperation, collect, main
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.env.pusht.expert.scripted_expert import ScriptedExpert
from diffusion_policy.env.pusht.observations import OBSERVATIONS
from diffusion_policy.env.pusht.pusht_env import PushTEnv
from diffusion_policy.util.errors import UserError
from tests.processes import started

ROOT = Path(__file__).parents[1]
SIZE = 256
KEYS = {"state": (5,), "action": (2,), "n_contacts": (1,), "keypoint": (9, 2)}


@pytest.fixture
def teleoperation(monkeypatch):
    """Return a factory of teleoperations on SDL's dummy driver that a script operates."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    opened = []

    def make(script, images=False):
        made = Teleoperation(SIZE, control_hz=10, images=images)
        operator = script(made)
        # Between two steps the operator acts, in place of time going by.
        made.window.wait = lambda seconds: next(operator)
        opened.append(made.window)
        return made

    yield make
    for window in opened:
        window.close()


def press(key):
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))


def point_at(place):
    x, y = (np.asarray(place) * SIZE / 512).round().astype(int).tolist()
    pygame.event.post(
        pygame.event.Event(pygame.MOUSEMOTION, pos=(x, y), rel=(0, 0), buttons=(0,) * 3)
    )


def solve(made):
    """Grab the agent and follow the expert until the episode ends."""
    env, expert = made.env, ScriptedExpert()
    start = env.simulation
    point_at(env.simulation.get_state()[:2])
    yield
    while env.simulation is start:
        point_at(expert.action(env.simulation.get_state()))
        yield


def solve_episodes(count):
    def script(made):
        for _ in range(count):
            yield from solve(made)
        press(pygame.K_q)
        yield

    return script


@pytest.fixture
def buffer(tmp_path):
    return ReplayBuffer.create_from_path(tmp_path / "demos.zarr", mode="a")


@pytest.mark.slow
def test_episodes_are_recorded_to_success(teleoperation, buffer, tmp_path):
    collect(teleoperation(solve_episodes(2), images=True), buffer)
    recorded = ReplayBuffer.create_from_path(tmp_path / "demos.zarr")
    assert recorded.n_episodes == 2
    for seed in range(2):
        episode = recorded.get_episode(seed)
        assert {key: rows.shape[1:] for key, rows in episode.items()} == {
            **KEYS,
            "img": (96, 96, 3),
        }
        env = PushTEnv()
        _, info = env.reset(seed=seed)
        for step in range(len(episode["action"])):
            assert not info["success"]
            for key in ("state", "keypoint", "image"):
                expected = OBSERVATIONS[key].compute(info["state"])
                if key == "image":
                    found = episode["img"][step].transpose(2, 0, 1)
                else:
                    found = episode[key][step].reshape(-1)
                np.testing.assert_array_equal(found, expected)
            *_, info = env.step(episode["action"][step])
        assert info["success"]
        assert episode["n_contacts"].max() > 0
        assert episode["n_contacts"][0] == 0


@pytest.mark.slow
def test_recording_goes_on_with_the_next_seed(teleoperation, buffer):
    collect(teleoperation(solve_episodes(1)), buffer)
    first = buffer.get_episode(0, copy=True)
    collect(teleoperation(solve_episodes(1)), buffer)
    assert buffer.n_episodes == 2
    np.testing.assert_array_equal(buffer.get_episode(0)["action"], first["action"])
    start = OBSERVATIONS["state"].compute(PushTEnv().reset(seed=1)[1]["state"])
    np.testing.assert_array_equal(buffer.get_episode(1)["state"][0], start)


@pytest.mark.slow
def test_retry_and_quit_drop_the_steps_so_far(teleoperation, buffer):
    def script(made):
        point_at(made.env.simulation.get_state()[:2])
        yield
        point_at([500, 500])
        for _ in range(5):
            yield
        press(pygame.K_r)
        yield from solve(made)  # the first yield lets the key act, and the episode start again
        yield from solve(made)
        point_at(made.env.simulation.get_state()[:2])
        for _ in range(5):
            yield
        press(pygame.K_q)
        yield

    collect(teleoperation(script), buffer)
    assert buffer.n_episodes == 1
    start = OBSERVATIONS["state"].compute(PushTEnv().reset(seed=0)[1]["state"])
    np.testing.assert_array_equal(buffer.get_episode(0)["state"][0], start)
    states = buffer.get_episode(0)["state"]
    assert np.abs(np.diff(states[:, :2], axis=0)).max() < 60  # no jump inside the episode


def test_the_agent_stands_still_until_it_is_grabbed_and_while_paused(teleoperation, buffer):
    def script(made):
        def state():
            return made.env.simulation.get_state()

        def moves(frames=3):
            before = state()
            for _ in range(frames):
                yield
            return bool((state() != before).any())

        agent = state()[:2]
        point_at(agent + np.array([40, 0]))
        assert not (yield from moves())
        point_at(agent + np.array([20, 0]))
        assert (yield from moves())
        point_at(agent + np.array([100, 0]))
        assert (yield from moves())
        press(pygame.K_SPACE)
        assert not (yield from moves())
        point_at(state()[:2])  # touching the agent while paused is not grabbing it
        assert not (yield from moves())
        point_at(state()[:2] - [90, 0])
        yield
        press(pygame.K_SPACE)
        assert not (yield from moves())
        point_at(state()[:2])
        yield
        point_at(state()[:2] - [60, 0])
        assert (yield from moves())
        pygame.event.post(pygame.event.Event(pygame.QUIT))
        yield

    collect(teleoperation(script), buffer)
    assert buffer.n_episodes == 0


@pytest.mark.slow
def test_a_dataset_of_other_arrays_is_refused_before_recording(teleoperation, buffer):
    collect(teleoperation(solve_episodes(1)), buffer)
    with pytest.raises(UserError, match=r"this recording has .*'img'.*: choose another"):
        collect(teleoperation(solve_episodes(1), images=True), buffer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--control-hz", "0"], "error: --control-hz is 0.0: use"),
        (["--render-size", "20"], "error: --render-size 20 is too small"),
    ],
)
def test_wrong_options_are_refused(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--output", str(tmp_path / "demos.zarr"), *options])
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith(message)
    assert not list(tmp_path.iterdir())


def run_demo(output, environment):
    return started(
        [sys.executable, "demo_pusht.py", "--output", output],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def without_screen():
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    return {key: value for key, value in os.environ.items() if key not in screens}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a screen")
def test_no_screen_is_one_line_and_leaves_no_dataset(tmp_path):
    with run_demo(tmp_path / "demos.zarr", without_screen()) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: cannot open a window with DISPLAY=''" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not shutil.which("Xvfb") or not shutil.which("xdotool"), reason="needs X tools")
def test_window_opens_on_a_real_screen_and_obeys_real_keys(tmp_path):
    read_end, write_end = os.pipe()
    with started(
        ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "640x640x24"],
        pass_fds=[write_end],
        stderr=subprocess.DEVNULL,
    ):
        os.close(write_end)
        with os.fdopen(read_end) as chosen:
            display = f":{chosen.readline().strip()}"
        environment = {**without_screen(), "DISPLAY": display}
        with run_demo(tmp_path / "demos.zarr", environment) as process:
            for _ in range(300):  # until the window is there to hear it
                subprocess.run(["xdotool", "key", "q"], env=environment, check=True)
                if process.poll() is not None:
                    break
                time.sleep(0.1)
            process.kill()
            output, _ = process.communicate()
        assert process.returncode == 0
        assert output.splitlines()[-1].endswith("demos.zarr: 0 episodes, 0 steps")
