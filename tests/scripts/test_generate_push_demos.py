"""Demonstrations of push: reproducible, successful, and readable by a dataset."""

import sys

import numpy as np
import pytest

from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.window_dataset import WindowDataset
from diffusion_policy.scripts.generate_push_demos import main
from diffusion_policy.spec.window import Window
from tests.configs import compose_config


def run(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["generate_push_demos", *map(str, arguments)])
    main()


@pytest.mark.slow
def test_episodes_follow_from_the_seed_for_any_number_of_workers(tmp_path, monkeypatch):
    pytest.importorskip("metaworld")
    for workers in (1, 2):
        options = ("--episodes", 3, "--seed", 5, "--workers", workers, "--noise", 0.4)
        run(monkeypatch, *options, "--output", tmp_path / f"{workers}.zarr")
    one, two = (ReplayBuffer.create_from_path(tmp_path / f"{n}.zarr") for n in (1, 2))
    assert one.n_episodes == 3
    for key in ("image", "gripper_pos", "action"):
        np.testing.assert_array_equal(one[key][:], two[key][:])
    assert one["image"].dtype == np.uint8
    assert np.abs(one["action"][:]).max() <= 1
    task = compose_config("train_bc_push").task
    path = tmp_path / "1.zarr"
    dataset = WindowDataset(path, task.shape_meta, Window((0,), (0,)), cache_dir=tmp_path / "cache")
    assert dataset[0]["obs"]["image"].shape == (1, 3, 84, 84)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--episodes=0", "--episodes is 0; use at least 1"),
        ("--noise=-1", "--noise is -1.0; use at"),
    ],
)
def test_impossible_options_are_refused(monkeypatch, capsys, option, message):
    with pytest.raises(SystemExit):
        run(monkeypatch, option)
    assert message in capsys.readouterr().err


def test_existing_data_are_kept(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--output", tmp_path)
    assert "exists; remove it or choose another path" in capsys.readouterr().err
