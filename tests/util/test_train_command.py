from __future__ import annotations

import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig

import train
from diffusion_policy.util.train_command import named_configs, usage

CONFIGS = Path(__file__).parents[2] / "diffusion_policy" / "config"


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Runs train.py with these arguments, up to the config that it would train with."""
    seen: list[DictConfig] = []
    monkeypatch.setattr(
        "diffusion_policy.workspace.train_workspace.TrainWorkspace.launch", seen.append
    )

    def run(*arguments: str) -> DictConfig:
        here = [f"hydra.run.dir={tmp_path}"] if "=" in " ".join(arguments) else []
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments, *here])
        train.main()
        return seen.pop()

    return run


def test_every_named_config_is_told_with_what_it_is_for():
    assert sorted(named_configs()) == sorted(path.stem for path in CONFIGS.glob("train_*.yaml"))
    assert named_configs()["train_dot_pusht"] == "DOT on PushT keypoints"
    assert all(named_configs().values())


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--help"], 0), (["-h"], 0)])
def test_without_a_config_the_usage_is_told(command, capsys, arguments, code):
    with pytest.raises(SystemExit) as ended:
        command(*arguments)
    assert ended.value.code == code
    assert capsys.readouterr().out == usage() + "\n"


@pytest.mark.slow
def test_a_setting_that_the_config_leaves_at_its_default_needs_no_plus(command):
    cfg = command(
        "--config-name=train_dot_pusht", "task.env_runner.n_outcome_vis=2", "training.seed=3"
    )
    assert cfg.task.env_runner.n_outcome_vis == 2
    assert cfg.training.seed == 3
    # What is recorded as the command names it as Hydra does.
    assert sys.argv[2:4] == ["+task.env_runner.n_outcome_vis=2", "training.seed=3"]


@pytest.mark.slow
def test_a_policy_of_ones_own_takes_the_place_of_that_of_a_base(command, tmp_path):
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy/own.yaml").write_text("_target_: own.Policy\nwidth: 3\n")
    cfg = command("--config-dir", str(tmp_path), "--config-name=train_dot", "policy=own")
    assert cfg.policy == {"_target_": "own.Policy", "width": 3}
    assert command("--config-dir", str(tmp_path), "policy=own").name == "train"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("hydra.nothing=1", "config key hydra.nothing is unknown"),
        ("policy/nothing=1", "config key policy/nothing is unknown"),
        ("task=nothing", "there is no task 'nothing'; choose one of push, pusht_base"),
    ],
)
def test_what_is_no_setting_is_refused(command, capsys, setting, message):
    with pytest.raises(SystemExit):
        command("--config-name=train_dot_pusht", setting)
    assert capsys.readouterr().err.startswith(f"error: {message}")
