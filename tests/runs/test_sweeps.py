"""Sweeps as train.py -m runs them, with every launcher that is installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from diffusion_policy.util.json_logger import read_log
from tests.configs import TINY_DOT, tiny_overrides
from tests.demos import make_demos
from tests.processes import started
from tests.states import assert_equal_states, comparable_log, final_state
from tests.workspace.test_train_workspace import train

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demos(tmp_path_factory) -> Path:
    return make_demos(tmp_path_factory.mktemp("demos") / "demos.zarr")


def command(sweep: Path, *overrides: str) -> list[str]:
    script = [sys.executable, str(ROOT / "train.py"), "-m", "--config-name=train_dot_pusht"]
    return [*script, f"hydra.sweep.dir={sweep}", *overrides]


def run(sweep: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(sweep, *overrides),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    ("launcher", "plugin", "options"),
    [
        ("basic", "hydra", []),
        ("joblib", "hydra_plugins.hydra_joblib_launcher", ["hydra.launcher.n_jobs=2"]),
        ("submitit_local", "hydra_plugins.hydra_submitit_launcher", []),
        ("ray", "hydra_plugins.hydra_ray_launcher", ["+hydra.launcher.ray.init.num_cpus=2"]),
    ],
)
def test_two_seeds_of_the_debug_run(tmp_path, demos, launcher, plugin, options):
    if plugin != "hydra" and not (
        importlib.util.find_spec("hydra_plugins") and importlib.util.find_spec(plugin)
    ):
        pytest.skip(f"needs the extra of {launcher}")
    sweep = tmp_path / "sweep"
    result = run(
        sweep,
        *TINY_DOT,
        f"task.dataset.path={demos}",
        "training.debug=true",
        "training.seed=42,43",
        "training.num_threads=1",
        f"hydra/launcher={launcher}",
        *options,
    )
    assert result.returncode == 0, result.stderr
    common = OmegaConf.load(sweep / "config.yaml")
    assert common.name == "train_dot_pusht"
    assert "hydra" not in common
    assert "seed" not in common.training  # the jobs do not share it
    for number, seed in enumerate((42, 43)):
        job = sweep / f"train_{number}"
        assert OmegaConf.load(job / ".hydra/config.yaml").training.seed == seed
        assert final_state(job)["epoch"] == 2
        assert len(read_log(job / "logs.json.txt")) == 6


def test_killed_sweep_goes_on_where_it_was(tmp_path, demos):
    overrides = [*tiny_overrides(demos, tmp_path / "cache"), "training.checkpoint_minutes=0"]
    sweep, seeds = tmp_path / "sweep", "training.seed=42,43"
    second = sweep / "train_1/checkpoints/latest.ckpt"
    deadline = time.monotonic() + 120
    with started(
        command(sweep, *overrides, seeds),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while not second.exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.005)
    finished = final_state(sweep / "train_0")
    before = (sweep / "train_0/checkpoints/latest.ckpt").stat()

    result = run(sweep, *overrides, seeds)
    assert result.returncode == 0, result.stderr
    assert f"finished before, see {sweep / 'train_0'}" in result.stdout
    assert f"resuming from {sweep / 'train_1'}" in result.stdout
    assert (sweep / "train_0/checkpoints/latest.ckpt").stat() == before
    assert_equal_states(finished, final_state(sweep / "train_0"))
    train(tmp_path / "alone", [*overrides, "training.seed=43"])
    assert_equal_states(final_state(tmp_path / "alone"), final_state(sweep / "train_1"))
    assert comparable_log(tmp_path / "alone") == comparable_log(sweep / "train_1")


def test_sweep_directory_of_other_settings_is_refused(tmp_path, demos):
    overrides = [*tiny_overrides(demos, tmp_path / "cache"), "training.num_epochs=1"]
    assert run(tmp_path / "sweep", *overrides, "training.seed=42").returncode == 0
    result = run(tmp_path / "sweep", *overrides, "training.seed=43")
    assert result.returncode == 1
    assert "training.seed was 42 and is 43" in result.stderr
    assert result.stderr.count("error:") == 1


@pytest.mark.skipif(not importlib.util.find_spec("optuna"), reason="needs the extra optuna")
def test_optuna_chooses_by_the_monitored_metric(tmp_path, demos):
    sweep = tmp_path / "sweep"
    command = [
        *tiny_overrides(demos, tmp_path / "cache"),
        "hydra/sweeper=optuna",
        "hydra.sweeper.n_jobs=1",
        "hydra.sweeper.sampler.seed=1",
        "hydra.sweeper.direction=minimize",
        "checkpoint.topk.monitor_key=val_loss",
        "checkpoint.topk.mode=min",
        "optimizer.lr=tag(log,interval(1e-4,1e-1))",
    ]
    for n_trials in (1, 2):  # the second time goes on with the first
        result = run(sweep, *command, f"hydra.sweeper.n_trials={n_trials}")
        assert result.returncode == 0, result.stderr
    assert f"finished before, see {sweep / 'train_0'}" in result.stdout
    losses = [
        read_log(sweep / f"train_{number}/logs.json.txt")[-1]["val_loss"] for number in range(2)
    ]
    best = OmegaConf.load(sweep / "optimization_results.yaml")
    assert best.best_value == pytest.approx(min(losses))


@pytest.mark.parametrize(
    ("sweeps", "override", "message"),
    [
        (
            True,
            "hydra.launcher.n_cats=2",
            "depend on hydra/launcher and hydra/sweeper",
        ),
        (False, "training.seed=1,2", "training.seed=1,2 has several values"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, sweeps, override, message):
    call = command(tmp_path, override)
    if not sweeps:
        call.remove("-m")
    result = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_sweep_under_torchrun_is_refused(tmp_path, monkeypatch):
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    result = run(tmp_path / "sweep", "training.device=cpu")
    assert result.returncode == 1
    assert "torchrun started a sweep (-m)" in result.stderr


def test_missing_launcher_names_its_extra(tmp_path):
    result = run(tmp_path / "sweep", "hydra/launcher=submitit_lokal")
    assert result.returncode == 1
    assert "pip install -e '.[submitit]'" in result.stderr
