"""A run goes on with the data that it was trained on, wherever they lie now."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from omegaconf import DictConfig

from diffusion_policy.checkpoint.checkpoint_file import load_checkpoint, save_checkpoint
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.util.errors import UserError
from diffusion_policy.workspace.train_workspace import TrainWorkspace, _finished_state
from tests.configs import compose_config, tiny_overrides
from tests.demos import make_demos


def config(folder: Path, data: Path, *more: str) -> DictConfig:
    overrides = [*tiny_overrides(data, folder / "cache"), "task.env_runner=null", *more]
    return compose_config("train_dot_pusht", *overrides)


def train(folder: Path, data: Path, *more: str) -> TrainWorkspace:
    workspace = TrainWorkspace(config(folder, data, *more), folder / "run")
    workspace.run()
    return workspace


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with demonstrations and a run that has done one epoch on them."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder, make_demos(folder / "demos.zarr"), "training.num_epochs=1")
    return folder


def resume(folder: Path, data: Path) -> int:
    """Train for another epoch; returns the epochs done."""
    return train(folder, data, "training.num_epochs=2").epoch


@pytest.mark.slow
def test_a_run_is_not_resumed_with_other_episodes(tmp_path, trained):
    folder = shutil.copytree(trained, tmp_path / "copy")
    data = shutil.copytree(trained / "demos.zarr", tmp_path / "demos.zarr")
    ReplayBuffer.create_from_path(data, mode="r+").drop_episode()
    with pytest.raises(UserError, match=r"data have changed: .* 6 episodes .*holds 5 episodes"):
        resume(folder, data)


@pytest.mark.slow
def test_a_run_is_resumed_with_a_copy_elsewhere(tmp_path, trained):
    folder = shutil.copytree(trained, tmp_path / "copy")
    assert resume(folder, folder / "demos.zarr") == 2


@pytest.mark.slow
def test_a_finished_run_does_not_pass_for_one_on_other_data(trained):
    data, run = trained / "demos.zarr", trained / "run"
    same, other = (
        config(trained, path, "training.num_epochs=1") for path in (data, trained / "other.zarr")
    )
    assert _finished_state(same, run) is not None
    assert _finished_state(other, run) is None  # so it is started, and compares the data


@pytest.mark.slow
def test_a_checkpoint_that_does_not_know_its_data_knows_their_path(tmp_path, trained):
    folder = shutil.copytree(trained, tmp_path / "copy")
    latest = folder / "run/checkpoints/latest.ckpt"
    payload = load_checkpoint(latest)
    del payload["state"]["data"]
    save_checkpoint(latest, payload["config"], payload["state"])
    with pytest.raises(UserError, match=r"task\.dataset\.path was"):
        resume(folder, folder / "demos.zarr")


def test_data_without_a_sample_are_refused(tmp_path):
    data = make_demos(tmp_path / "demos.zarr", n_episodes=2, length=2)
    small = ["policy.down_dims=[16,32]", "training.device=cpu", "task.env_runner=null"]
    cfg = compose_config("train_diffusion_unet_pusht", f"task.dataset.path={data}", *small)
    with (
        pytest.warns(UserWarning, match="1 of 1 training episodes are too short"),
        pytest.raises(UserError, match="gives no training sample"),
    ):
        TrainWorkspace(cfg, tmp_path / "run")
