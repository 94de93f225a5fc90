from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from diffusion_policy.workspace.run_folder import RunFolder


def config(run: str = "newest", sweep: str = "newest"):
    overrides = [f"hydra.run.dir={run}", f"hydra.sweep.dir={sweep}", "hydra.job.name=a"]
    cfg = {"run": {"dir": run}, "sweep": {"dir": sweep}, "overrides": {"hydra": overrides}}
    cfg = OmegaConf.create({"hydra": cfg})
    OmegaConf.set_readonly(cfg.hydra, True)
    return cfg


def make(outputs: Path, name: str, mark: str) -> Path:
    path = outputs / name / mark
    path.parent.mkdir(parents=True)
    path.touch()
    return outputs / name


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_the_newest_of_the_same_config_is_found(tmp_path, kind):
    mark, other = (".hydra/config.yaml", "config.yaml")[:: 1 if kind == "run" else -1]
    for name in ("2026.01.02/10.00.00_train_dot_a", "2026.01.02/09.00.00_train_dot_b"):
        make(tmp_path, name, mark)
    newest = make(tmp_path, "2026.02.01/08.00.00_train_dot_a", mark)
    make(tmp_path, "2026.02.02/08.00.00_train_dot_b", mark)
    make(tmp_path, "2026.02.03/08.00.00_train_dot_a", other)  # a sweep is no run
    cfg = config()
    start = RunFolder(str(tmp_path), "train_dot_a")
    (start.on_run_start if kind == "run" else start.on_multirun_start)(cfg)
    assert cfg.hydra[kind].dir == str(newest)
    assert f"hydra.{kind}.dir={newest}" in cfg.hydra.overrides.hydra


def test_without_an_earlier_run_nothing_starts(tmp_path):
    with pytest.raises(SystemExit, match=r"error: hydra\.run\.dir is newest, but .* holds no"):
        RunFolder(str(tmp_path), "train_dot_a").on_run_start(config())


def test_home_is_found_and_other_folders_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    cfg = config("~/runs/a", str(tmp_path))
    RunFolder("none", "a").on_run_start(cfg)
    RunFolder("none", "a").on_multirun_start(cfg)
    assert (cfg.hydra.run.dir, cfg.hydra.sweep.dir) == (f"{tmp_path}/runs/a", str(tmp_path))
