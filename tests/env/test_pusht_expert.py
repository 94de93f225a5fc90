"""The scripted PushT expert, the model of pushing it plans with, and its demonstrations."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from diffusion_policy.env.pusht import pushing
from diffusion_policy.env.pusht.expert import ScriptedExpert
from diffusion_policy.env.pusht.routes import RUN_UP, Routes
from diffusion_policy.env.pusht.simulation import PushTSimulation, initial_state
from diffusion_policy.scripts import generate_pusht_demos as demos

SHIPPED = Path(__file__).parents[2] / demos.DEFAULT_OUTPUT


@pytest.mark.parametrize("seed", [100000, 100001, 100002])
def test_expert_succeeds_from_random_starts(seed):
    simulation, expert = PushTSimulation(), ScriptedExpert()
    simulation.set_state(initial_state(seed))
    for _ in range(150):
        simulation.step(expert.action(simulation.get_state()))
        if simulation.coverage() > 0.95:
            return
    pytest.fail(f"coverage {simulation.coverage():.3f} after 150 steps")


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


def test_routes_go_around_the_block_without_touching_it():
    faces = np.arange(len(pushing.FACES))
    middle = (pushing.FACE_LOW + pushing.FACE_HIGH) / 2
    routes = Routes(agent=np.array([0.0, -80.0]))  # before the bar's top
    part = np.linspace(0, 1, 50)[:, None]
    bar, stem = (-60, 60, -45, -15), (-15, 15, -15, 75)
    for face, s, length in zip(faces, middle, routes.lengths(faces, middle), strict=True):
        way = routes.way(face, s)
        legs = np.diff(way, axis=0)
        assert np.linalg.norm(legs, axis=1).sum() == pytest.approx(length)
        assert np.linalg.norm(legs[-1]) == pytest.approx(RUN_UP)
        np.testing.assert_array_equal(way[-1], pushing.contact(face, s))
        for start, leg in zip(way[:-2], legs[:-1], strict=True):
            x, y = (start + part * leg).T
            for low_x, high_x, low_y, high_y in (bar, stem):
                aside = np.maximum(np.maximum(low_x - x, x - high_x), 0)
                above = np.maximum(np.maximum(low_y - y, y - high_y), 0)
                assert np.hypot(aside, above).min() > 15


def test_same_bytes_for_any_number_of_workers(tmp_path, monkeypatch):
    def generated(name, workers):
        path = tmp_path / name
        arguments = f"prog --episodes 3 --seed 5 --workers {workers} --output {path}"
        monkeypatch.setattr(sys, "argv", arguments.split())
        demos.main()
        return path.read_bytes()

    assert generated("one.zarr.zip", 1) == generated("two.zarr.zip", 2)


def test_existing_output_is_refused(tmp_path, monkeypatch, capsys):
    path = tmp_path / "kept.zip"
    path.write_text("kept")
    monkeypatch.setattr(sys, "argv", ["prog", "--episodes", "1", "--output", str(path)])
    with pytest.raises(SystemExit, match="1"):
        demos.main()
    assert "exists" in capsys.readouterr().err
    assert path.read_text() == "kept"


def test_replay_check_notices_a_changed_action():
    demonstration = demos.record(seed=0, index=0)
    demos.check_replay(demonstration)
    executed = demonstration.executed_action.copy()
    executed[3] += 0.1
    with pytest.raises(RuntimeError, match="step 4"):
        demos.check_replay(dataclasses.replace(demonstration, executed_action=executed))


def test_shipped_demonstrations_replay_to_success():
    assert SHIPPED.stat().st_size <= 4e6
    keys = ("state", "action", "executed_action")
    with zarr.storage.ZipStore(SHIPPED, mode="r") as store:
        group = zarr.open_group(store, mode="r")
        ends = group["meta/episode_ends"][:]
        starts = group["meta/initial_state"][:]
        data = {key: group[f"data/{key}"][:] for key in keys}
    assert len(ends) >= 200
    assert {values.dtype.str for values in data.values()} == {"<f4"}
    assert all(len(values) == ends[-1] for values in data.values())
    assert 0 <= data["action"].min() <= data["action"].max() <= 512
    for episode in range(0, len(ends), 20):
        rows = slice(ends[episode - 1] if episode else 0, ends[episode])
        recorded = {key: values[rows] for key, values in data.items()}
        demos.check_replay(demos.Demonstration(starts[episode], **recorded))
