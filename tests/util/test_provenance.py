import re
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig

from diffusion_policy.util import provenance


def test_the_command_can_be_typed_again(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/some/where/eval.py", "--checkpoint", "a b.ckpt"])
    assert provenance.command_line() == "python eval.py --checkpoint 'a b.ckpt'"


@pytest.mark.slow
def test_torchrun_is_told_how_many_processes_a_machine_has(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--config-dir=mine", "hydra.run.dir=out"])
    world = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
    for name, value in world.items():
        monkeypatch.setenv(name, value)
    expected = "torchrun --nproc_per_node=4 train.py --config-dir=mine hydra.run.dir=out"
    assert provenance.command_line() == expected


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RUN", "MULTIRUN"])
def test_a_job_of_a_sweep_is_told_alone(monkeypatch, mode):
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "--config-dir=mine", "seed=1,2"])
    with initialize_config_module("diffusion_policy.config", version_base="1.3"):
        overrides = ["training.seed=2", f"hydra.mode={mode}"]
        cfg = compose("train_dot_pusht", overrides=overrides, return_hydra_config=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg)
    assert (
        provenance.command_line()
        == {
            "RUN": "python train.py -m --config-dir=mine seed=1,2",
            "MULTIRUN": "python train.py --config-name=train_dot_pusht training.seed=2",
        }[mode]
    )


def test_the_commit_is_that_of_the_code(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    assert provenance.commit() == "unknown"

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True)

    (tmp_path / "code.py").write_text("1")
    git("init", "--quiet")
    assert provenance.commit() == "unknown"  # nothing is committed
    git("add", ".")
    git("commit", "--quiet", "--message=First")
    git("tag", "v1")
    assert re.fullmatch(r"[0-9a-f]{7,}", provenance.commit())
    (tmp_path / "code.py").write_text("2")
    assert re.fullmatch(r"[0-9a-f]{7,}-dirty", provenance.commit())
