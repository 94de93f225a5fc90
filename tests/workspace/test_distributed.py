"""Training in two processes, as torchrun starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from diffusion_policy.checkpoint.checkpoint_file import load_checkpoint
from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.util.json_logger import read_log
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from tests.configs import compose_config, tiny_overrides, tiny_policy
from tests.demos import make_demos
from tests.processes import started

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DOT, TRANSFORMER = "train_dot_pusht", "train_diffusion_transformer_pusht"
UNET = "train_diffusion_unet_pusht_image"
# Accumulation, an odd batch, batches of one row at the end of an epoch, and noise on the inputs.
HARD = ["dataloader.batch_size=41", "training.gradient_accumulate_every=2", "training.num_epochs=2"]
# Adam would turn rounding of a vanishing gradient into a whole step.
SGD = ["optimizer._target_=torch.optim.SGD", "optimizer.lr=0.1", "+optimizer.momentum=0.9"]
SGD += ["optimizer.fused=false", "~optimizer.betas", "~optimizer.eps"]
IMAGE = ["policy.obs_encoder.crop=[32,32]", "dataloader.batch_size=5"]
IMAGE += ["training.max_train_steps=2", "training.num_epochs=1", "task.env_runner.max_steps=2"]
# Without dropout, which each process draws for itself.
NO_DROPOUT = {DOT: ["policy.dropout=0"], TRANSFORMER: ["policy.p_drop_attn=0"], UNET: IMAGE}


@pytest.fixture(scope="module")
def demos(tmp_path_factory) -> Path:
    return make_demos(tmp_path_factory.mktemp("demos") / "demos.zarr")


@pytest.fixture
def overrides(demos, tmp_path):
    def of(name: str) -> list[str]:
        tiny = tiny_overrides(demos, tmp_path / "cache", tiny_policy(name))
        return [*tiny, *HARD, *SGD, *NO_DROPOUT[name]]

    return of


def alone(output_dir: Path, name: str, overrides: list[str]) -> None:
    TrainWorkspace(compose_config(name, *overrides), output_dir).run()


def torchrun(
    output_dir: Path, name: str, overrides: list[str]
) -> AbstractContextManager[subprocess.Popen]:
    command = [*(sys.executable, "-m", "torch.distributed.run"), "--nproc_per_node=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]  # any free port
    command += ["train.py", f"--config-name={name}", f"hydra.run.dir={output_dir}", *overrides]
    return started(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def numbers(output_dir: Path) -> list[dict]:
    return [
        {key: value for key, value in record.items() if not isinstance(value, str)}
        for record in read_log(output_dir / "logs.json.txt")
    ]


def assert_same_training(one: Path, other: Path) -> None:
    """The same records, weights and average, but for rounding."""
    for a, b in zip(numbers(one), numbers(other), strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)
    left, right = (
        load_checkpoint(run / "checkpoints/latest.ckpt")["state"] for run in (one, other)
    )
    for part in ("model", "ema_model"):
        assert left[part].keys() == right[part].keys()
        for key, value in left[part].items():
            torch.testing.assert_close(value, right[part][key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "extra"), [(DOT, []), (TRANSFORMER, []), (UNET, ["training.fsdp=true"])]
)
def test_two_processes_train_like_one(tmp_path, overrides, name, extra):
    alone(tmp_path / "alone", name, overrides(name))
    with torchrun(tmp_path / "two", name, [*overrides(name), *extra]) as process:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    assert "2 processes" in output
    assert output.count("success rate") == 1  # one of them speaks
    assert_same_training(tmp_path / "alone", tmp_path / "two")
    files = {p.relative_to(tmp_path / "alone") for p in (tmp_path / "alone").rglob("*")}
    assert files == {p.relative_to(tmp_path / "two") for p in (tmp_path / "two").rglob("*")}


def test_run_goes_on_with_another_number_of_processes(tmp_path, overrides, monkeypatch):
    alone(tmp_path / "whole", DOT, overrides(DOT))
    # One process for an epoch, two with a part of the model each for a step or two, one again.
    changing, validate = tmp_path / "changing", TrainWorkspace._validate

    def interrupted(self: TrainWorkspace, policy: BasePolicy) -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        return validate(self, policy)

    with monkeypatch.context() as patch:
        patch.setattr(TrainWorkspace, "_validate", interrupted)
        with pytest.raises(SystemExit):
            alone(changing, DOT, overrides(DOT))
    n_logged = len(numbers(changing))
    with torchrun(changing, DOT, [*overrides(DOT), "training.fsdp=true"]) as process:
        wait_for_log(changing, process, n_logged + 1)
        process.send_signal(signal.SIGTERM)  # to torchrun, which tells both
        output, _ = process.communicate(timeout=120)
    assert "resuming from" in output
    assert "stopped by SIGTERM" in output
    assert process.returncode != 0
    alone(changing, DOT, overrides(DOT))
    assert_same_training(tmp_path / "whole", changing)


def wait_for_log(output_dir: Path, process: subprocess.Popen, n_records: int = 1) -> None:
    deadline = time.monotonic() + 120
    while len(numbers(output_dir)) < n_records and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate(timeout=60)[0]
        time.sleep(0.01)


def test_death_of_one_process_ends_the_run_within_a_minute(tmp_path, overrides):
    long = [*overrides(DOT), "training.num_epochs=1000", "training.rollout_every=1000"]
    with torchrun(tmp_path / "run", DOT, long) as process:
        wait_for_log(tmp_path / "run", process)
        # The main process is the one that holds the output directory.
        main = int((tmp_path / "run/.lock").read_text())
        (other,) = (child for child in children(process.pid) if child != main)
        os.kill(other, signal.SIGKILL)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    with pytest.raises(ProcessLookupError):
        os.kill(main, 0)


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
