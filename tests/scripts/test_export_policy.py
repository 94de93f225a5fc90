"""An exported policy acts as its checkpoint does."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch.testing import assert_close

from diffusion_policy.checkpoint.policy_folder import (
    CONFIG_FILE,
    README_FILE,
    WEIGHTS_FILE,
    save_policy_folder,
)
from diffusion_policy.checkpoint.saved_policy import SavedPolicy, load_policy
from diffusion_policy.policy.dot_policy import DOTPolicy
from diffusion_policy.scripts import export_policy
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from tests.configs import compose_config, tiny_overrides
from tests.demos import make_demos


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> TrainWorkspace:
    """A run of a few steps; its averaged weights differ from its latest weights."""
    folder = tmp_path_factory.mktemp("run")
    overrides = tiny_overrides(make_demos(folder / "demos.zarr"), folder / "cache")
    workspace = TrainWorkspace(compose_config("train_dot_pusht", *overrides), folder)
    for i, batch in enumerate(workspace.loader):
        workspace.train_step([(workspace.order.part(i), batch)])
    workspace.save_checkpoint()
    return workspace


def export(checkpoint: Path, output: Path, *options: str) -> None:
    export_policy.main([f"--checkpoint={checkpoint}", f"--output={output}", *options])


def actions(checkpoint: Path) -> torch.Tensor:
    policy, _ = load_policy(checkpoint)
    generator = torch.Generator().manual_seed(0)
    n_times = len(policy.obs_offsets)
    obs = {
        key: 512 * torch.rand(2, n_times, *field.shape, generator=generator)
        for key, field in policy.shape_meta.obs.items()
    }
    return policy.predict_action(obs)["action_pred"]


@pytest.mark.slow
def test_acts_as_its_checkpoint_does(workspace, tmp_path):
    checkpoint, folder = workspace.get_checkpoint_path(), tmp_path / "deep" / "policy"
    export(checkpoint, folder)
    assert {path.name for path in folder.iterdir()} == {CONFIG_FILE, WEIGHTS_FILE}
    assert torch.equal(actions(folder), actions(checkpoint))
    assert load_policy(folder)[1] == load_policy(checkpoint)[1]
    weights, averaged = load_file(folder / WEIGHTS_FILE), workspace.ema_model.state_dict()
    assert_close(weights, dict(averaged), rtol=0, atol=0)
    assert any(not torch.equal(weights[k], v) for k, v in workspace.model.state_dict().items())

    export(folder, tmp_path / "again")  # from a folder, too
    assert (tmp_path / "again" / WEIGHTS_FILE).read_bytes() == (folder / WEIGHTS_FILE).read_bytes()


@pytest.mark.slow
def test_settings_become_part_of_the_policy(workspace, tmp_path, capsys):
    checkpoint, folder = workspace.get_checkpoint_path(), tmp_path / "policy"
    before, after = "policy.return_every_n=2", "+policy.stall_tolerance=0.5"
    export_policy.main([before, f"--checkpoint={checkpoint}", f"--output={folder}", after])
    policy, cfg = load_policy(folder)
    assert (policy.follower.return_every_n, policy.stall_tolerance) == (2, 0.5)
    assert cfg.policy.return_every_n == 2
    for setting, reason in {
        "policy.return_every=2": "checkpoint; did you mean policy.return_every_n?",
        "policy.zzz=2": "names no setting of the checkpoint; give key=value",
        "policy.dim=48": "does not fit its config",
        "policy.return_every_n=99": "policy.return_every_n is 99",
    }.items():
        with pytest.raises(SystemExit):
            export(checkpoint, tmp_path / "other", setting)
        assert reason in capsys.readouterr().err
        assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_foreign_policy_is_built_on_request_alone(workspace, tmp_path, capsys):
    saved = SavedPolicy.read(workspace.get_checkpoint_path())
    saved.cfg.policy._target_ = "tests.scripts.test_export_policy.MyPolicy"
    foreign = tmp_path / "foreign"
    save_policy_folder(foreign, OmegaConf.to_yaml(saved.cfg), saved.weights)
    export(foreign, tmp_path / "plain")
    export(foreign, tmp_path / "slow", "task.env_runner.max_steps=10")
    with pytest.raises(SystemExit):
        export(foreign, tmp_path / "changed", "policy.return_every_n=2")
    assert "--trust-checkpoint" in capsys.readouterr().err
    export(foreign, tmp_path / "changed", "policy.return_every_n=2", "--trust-checkpoint")
    assert SavedPolicy.read(tmp_path / "changed").cfg.policy.return_every_n == 2


class MyPolicy(DOTPolicy):
    """A policy class from outside diffusion_policy."""


@pytest.mark.slow
def test_replaces_a_policy_on_request_and_keeps_its_readme(workspace, tmp_path, capsys):
    checkpoint, folder = workspace.get_checkpoint_path(), tmp_path / "policy"
    export(checkpoint, folder)
    before = (folder / WEIGHTS_FILE).read_bytes()
    (folder / README_FILE).write_text("about it")
    (folder / WEIGHTS_FILE).write_bytes(b"torn")
    with pytest.raises(SystemExit):
        export(checkpoint, folder)
    assert (
        "exists; choose another --output, or replace it with --overwrite" in capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        load_or_exit(folder)
    assert "model.safetensors is damaged" in capsys.readouterr().err

    for torn in (b"policy: {dim", b"\xff"):
        (folder / CONFIG_FILE).write_bytes(torn)
        with pytest.raises(SystemExit):
            load_or_exit(folder)
        error = capsys.readouterr().err
        assert "config.yaml is damaged" in error
        assert error.count("\n") == 1

    export(checkpoint, folder, "--overwrite")
    assert (folder / WEIGHTS_FILE).read_bytes() == before
    assert (folder / README_FILE).read_text() == "about it"


def load_or_exit(folder: Path) -> None:
    export(folder, folder.with_name("copy"))


def test_does_not_replace_a_folder_of_other_things(workspace, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(SystemExit):
        export(workspace.get_checkpoint_path(), tmp_path / "mine", "--overwrite")
    assert "is no policy folder (thesis.tex)" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_run_is_no_policy_folder(workspace, tmp_path, capsys):
    with pytest.raises(SystemExit):
        export(workspace.output_dir, tmp_path / "policy")
    assert "holds no config.yaml; give a .ckpt file" in capsys.readouterr().err
