"""What the version before EpisodeStore wrote still loads, acts and goes on as it did."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_policy.checkpoint.checkpoint_file import load_checkpoint
from diffusion_policy.checkpoint.saved_policy import load_policy
from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.util.json_logger import read_log
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from tests.configs import compose_config
from tests.demos import make_demos

ROOT = Path(__file__).parents[2]
OLD = ROOT / "tests/golden/old_runs"
RUNS = ("train_dot_pusht", "train_diffusion_unet_pusht", "train_dot_pusht_image")


def observations(policy: BasePolicy) -> dict[str, np.ndarray]:
    """Those that the recorded actions belong to."""
    rng = np.random.default_rng(0)
    obs = {}
    for key, field in policy.shape_meta.obs.items():
        shape = (2, len(policy.obs_offsets), *field.shape)
        if field.type == "rgb":
            obs[key] = rng.integers(0, 256, shape, dtype=np.uint8)
        else:
            obs[key] = rng.uniform(50, 450, shape).astype(np.float32)
    return obs


def assert_acts_as(policy: BasePolicy, expected: Path) -> None:
    obs = observations(policy)
    policy.reset([0, 1], seeds=[11, 12])
    record = np.load(expected)
    for suffix, order in (("", 1), ("_second", -1)):
        inputs = {key: torch.from_numpy(value[::order].copy()) for key, value in obs.items()}
        predicted = policy.predict_action(inputs, env_ids=[0, 1])
        for name in ("action", "action_pred"):
            # Bit for bit where the record was made; other processors round otherwise.
            np.testing.assert_allclose(
                predicted[name].numpy(), record[f"{name}{suffix}"], rtol=1e-5, atol=1e-3
            )


@pytest.mark.parametrize("name", RUNS)
def test_checkpoint_acts_as_it_did(name):
    policy, _ = load_policy(OLD / name / "checkpoints/latest.ckpt")
    assert_acts_as(policy, OLD / name / "expected.npz")


def test_exported_folder_acts_as_it_did():
    policy, _ = load_policy(OLD / "exported_dot_pusht")
    assert_acts_as(policy, OLD / "train_dot_pusht/expected.npz")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Where the commands of the runs find what they name."""
    make_demos(tmp_path / "data/demos.zarr")
    pretrained = "data/pretrained/keypoint_cnn_pusht"
    shutil.copytree(ROOT / pretrained, tmp_path / pretrained)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def numbers(log: Path) -> list[dict]:
    records = read_log(log)
    return [{k: v for k, v in record.items() if not isinstance(v, str)} for record in records]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_run_goes_on_as_it_did(place, name):
    run = place / "runs" / name
    shutil.copytree(OLD / name, run)
    command = shlex.split((run / "continued/command.txt").read_text())
    workspace = TrainWorkspace(compose_config(name, *command[3:]), run)
    workspace.run()
    assert load_checkpoint(workspace.get_checkpoint_path())["state"]["epoch"] == 3
    found, expected = (numbers(each / "logs.json.txt") for each in (run, run / "continued"))
    assert len(found) == len(expected)
    for record, recorded in zip(found, expected, strict=True):
        assert record.pop("grad_norm", 1) > 0  # was not logged then
        assert record == pytest.approx(recorded, rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_a_checkpoint_brings_its_workspace_along(place):
    shutil.copytree(OLD / "train_dot_pusht", place / "run")
    restored = TrainWorkspace.create_from_checkpoint(place / "run/checkpoints/latest.ckpt")
    assert (restored.epoch, restored.global_step) == (2, 8)
