from __future__ import annotations

import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from diffusion_policy.checkpoint.saved_policy import load_policy
from diffusion_policy.util.errors import UserError, user_message
from diffusion_policy.util.json_logger import read_log
from diffusion_policy.util.output_dir import OutputLock
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from tests.configs import NO_WEIGHTS, compose_config, tiny_overrides, tiny_policy
from tests.demos import make_demos
from tests.processes import started
from tests.states import assert_equal_states, comparable_log, final_state

ROOT = Path(__file__).parents[2]
SMALL_BATCHES = [
    "dataloader.batch_size=2",
    "val_dataloader.batch_size=2",
    "training.max_val_steps=1",
]


@pytest.fixture(scope="module")
def demos(tmp_path_factory) -> Path:
    return make_demos(tmp_path_factory.mktemp("demos") / "demos.zarr")


@pytest.fixture
def overrides(demos, tmp_path) -> list[str]:
    return tiny_overrides(demos, tmp_path / "cache")


def train(output_dir: Path, overrides: list[str], name: str = "train_dot_pusht") -> TrainWorkspace:
    workspace = TrainWorkspace(compose_config(name, *overrides), output_dir)
    workspace.run()
    return workspace


@pytest.mark.slow
def test_run_leaves_what_it_promises(tmp_path, overrides, capsys):
    output_dir = tmp_path / "run"
    workspace = train(output_dir, overrides)
    assert workspace.global_step == 12
    names = {path.name for path in (output_dir / "checkpoints").iterdir()}
    assert "latest.ckpt" in names
    assert any(name.startswith("epoch=0002-test_mean_score=") for name in names)
    assert (output_dir / "curves.png").stat().st_size > 10_000
    assert len(list((output_dir / "media").rglob("*.mp4"))) == 1
    assert OmegaConf.load(output_dir / ".hydra" / "config.yaml").name == "train_dot_pusht"
    records = read_log(output_dir / "logs.json.txt")
    assert [record["global_step"] for record in records] == list(range(12))
    assert {"train_loss", "lr", "epoch"} <= records[0].keys()
    last = records[-1]
    assert {"val_loss", "train_action_mse_error", "test/mean_score"} <= last.keys()
    epoch_losses = [r["train_loss"] for r in records[4:7]]
    assert min(epoch_losses) <= records[7]["train_loss"] <= max(epoch_losses) * 1.5
    out = capsys.readouterr().out
    assert "device    cpu" in out
    assert "success rate 0.0% (95 % interval" in out
    assert str(output_dir) in out
    told = re.search(r"disk      7 checkpoints of ([\d.]+) MB at most", out)
    size = (output_dir / "checkpoints/latest.ckpt").stat().st_size / 1e6
    assert size == pytest.approx(float(told[1]), abs=0.2)  # and counters, and the config


@pytest.mark.slow
def test_training_lowers_the_loss(tmp_path, overrides):
    long = [*overrides, "training.num_epochs=12", "training.max_train_steps=10"]
    long += ["training.rollout_every=100", "optimizer.lr=3e-3"]
    train(tmp_path / "run", long)
    records = read_log(tmp_path / "run" / "logs.json.txt")
    assert records[-1]["train_loss"] < 0.5 * records[0]["train_loss"]
    assert records[-1]["val_loss"] < records[9]["val_loss"]


KILLER = """
# Runs train.py until the n-th step, or half-way through writing the n-th checkpoint.
import os, signal, sys
import diffusion_policy.util.output_dir as output_dir
import train
from diffusion_policy.workspace.train_workspace import TrainWorkspace

event, left = sys.argv.pop(1), int(sys.argv.pop(1))
whole_save, whole_step = output_dir.replacing, TrainWorkspace.train_step

def due():
    global left
    left -= 1
    return left == 0

def torn_save(path):
    if path.suffix == ".ckpt" and due():
        with whole_save(path) as partial:
            partial.write_bytes(b"half of a checkpoint")
            os.kill(os.getpid(), signal.SIGKILL)
    return whole_save(path)

def dying_step(self, batches):
    if due():
        os.kill(os.getpid(), signal.SIGKILL)
    return whole_step(self, batches)

if event == "save":
    output_dir.replacing = torn_save
else:
    TrainWorkspace.train_step = dying_step
train.main()
"""


def run_script(output_dir: Path, overrides: list[str], *, code: str | None = None, args=()):
    start = ["-c", code] if code else [str(ROOT / "train.py")]
    return subprocess.run(
        [
            *(sys.executable, *start, *args, "--config-name=train_dot_pusht", *overrides),
            f"hydra.run.dir={output_dir}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_killed_runs_end_like_an_uninterrupted_one(tmp_path, overrides):
    # Save within epochs too: that is where resuming is hardest.
    overrides = [*overrides, "training.checkpoint_minutes=0"]
    train(tmp_path / "whole", overrides)
    for event in ["step 3", "save 3", "step 2", "save 4"]:
        result = run_script(tmp_path / "killed", overrides, code=KILLER, args=event.split())
        assert result.returncode == -signal.SIGKILL, result.stderr
    result = run_script(tmp_path / "killed", overrides)
    assert result.returncode == 0, result.stderr
    assert_equal_states(final_state(tmp_path / "whole"), final_state(tmp_path / "killed"))
    assert comparable_log(tmp_path / "whole") == comparable_log(tmp_path / "killed")
    best = {p.name for p in (tmp_path / "whole" / "checkpoints").glob("*.ckpt")}
    assert best == {p.name for p in (tmp_path / "killed" / "checkpoints").glob("*.ckpt")}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_and_resumes_exactly(tmp_path, overrides, number):
    train(tmp_path / "whole", overrides)
    command = [
        *(sys.executable, str(ROOT / "train.py"), "--config-name=train_dot_pusht", *overrides),
        f"hydra.run.dir={tmp_path / 'stopped'}",
    ]
    log = tmp_path / "stopped" / "logs.json.txt"
    deadline = time.monotonic() + 120
    with started(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        while not read_log(log) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number, output
    assert f"stopped by {number.name}" in output
    assert "Traceback" not in output
    assert final_state(tmp_path / "stopped")["global_step"] < 12
    train(tmp_path / "stopped", overrides)
    assert_equal_states(final_state(tmp_path / "whole"), final_state(tmp_path / "stopped"))
    assert comparable_log(tmp_path / "whole") == comparable_log(tmp_path / "stopped")


# 4 steps an epoch: the third one ends after 2 of them.
LENGTHS = {
    "max_steps": ["training.max_steps=10", "training.num_epochs=1"],
    "log_every": ["training.log_every=3"],
    "no_runner": ["task.env_runner=null"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LENGTHS)
def test_runs_of_any_length_and_look_resume_exactly(tmp_path, overrides, monkeypatch, name):
    # Save within epochs too: that is where resuming is hardest.
    overrides = [*overrides, *LENGTHS[name], "training.checkpoint_minutes=0"]
    train(tmp_path / "whole", overrides)
    whole_step = TrainWorkspace.train_step

    def interrupted(self, batches):
        os.kill(os.getpid(), signal.SIGTERM)
        return whole_step(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(TrainWorkspace, "train_step", interrupted)
        for step in range(1, 6):
            with pytest.raises(SystemExit):
                train(tmp_path / "stopped", overrides)
            assert final_state(tmp_path / "stopped")["global_step"] == step
    train(tmp_path / "stopped", overrides)
    assert_equal_states(final_state(tmp_path / "whole"), final_state(tmp_path / "stopped"))
    assert comparable_log(tmp_path / "whole") == comparable_log(tmp_path / "stopped")
    assert final_state(tmp_path / "whole")["global_step"] == (10 if name == "max_steps" else 12)


@pytest.mark.slow
def test_max_steps_cuts_the_last_epoch_short_and_can_be_prolonged(tmp_path, overrides, capsys):
    length = ["training.num_epochs=100", "training.val_every=100", "training.max_steps="]
    short, long = ([*overrides, *length[:-1], f"{length[-1]}{n}"] for n in (6, 11))
    train(tmp_path / "run", short)
    assert "schedule  6 steps of 16 samples, 4 steps an epoch, 0 done" in capsys.readouterr().out
    last = read_log(tmp_path / "run/logs.json.txt")[-1]
    assert (last["global_step"], last["epoch"], last["lr"]) == (5, 1, 0)
    assert {"val_loss", "test/mean_score"} <= last.keys()
    before = final_state(tmp_path / "run")
    train(tmp_path / "run", short)
    assert_equal_states(before, final_state(tmp_path / "run"))
    assert train(tmp_path / "run", long).global_step == 11
    records = read_log(tmp_path / "run/logs.json.txt")
    assert [record["global_step"] for record in records] == list(range(11))
    assert [record["epoch"] for record in records[4:]] == [1, 1, 2, 2, 2, 2, 3]
    assert records[-1]["lr"] == 0  # the schedule is that of the new length


@pytest.mark.slow
def test_accumulated_gradients_equal_one_large_batch(tmp_path, overrides):
    exact = [*overrides, "policy.dropout=0", "policy.state_noise=0", "policy.lookback_aug=0"]
    exact += ["training.num_epochs=1", "training.rollout_every=100", "task.env_runner.n_test=1"]
    # Adam would turn rounding of a vanishing gradient into a whole step.
    exact += ["optimizer._target_=torch.optim.SGD", "optimizer.lr=0.1"]
    exact += ["~optimizer.betas", "~optimizer.eps"]
    whole = train(tmp_path / "whole", [*exact, "dataloader.batch_size=16"])
    parts = train(
        tmp_path / "parts",
        [*exact, "dataloader.batch_size=8", "training.gradient_accumulate_every=2"],
    )
    assert whole.global_step == parts.global_step == 4
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_finished_run_has_nothing_left_to_do(tmp_path, overrides, capsys):
    train(tmp_path / "run", overrides)
    before = final_state(tmp_path / "run")
    train(tmp_path / "run", overrides)
    assert_equal_states(before, final_state(tmp_path / "run"))
    assert "12 done" in capsys.readouterr().out


@pytest.mark.slow
def test_checkpoint_deploys_alone(tmp_path, overrides):
    workspace = train(tmp_path / "run", overrides)
    moved = tmp_path / "elsewhere.ckpt"
    (tmp_path / "run" / "checkpoints" / "latest.ckpt").rename(moved)
    policy, cfg = load_policy(moved)
    assert OmegaConf.to_container(cfg.policy) == OmegaConf.to_container(
        workspace.cfg.policy, resolve=True
    )
    obs = {
        key: torch.rand(2, 3, *field.shape) * 512 for key, field in policy.shape_meta.obs.items()
    }
    workspace.policy.eval().reset()
    expected = workspace.policy.predict_action(obs)["action"]
    torch.testing.assert_close(policy.predict_action(obs)["action"], expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("train_dot_pusht_lerobot", []),
        ("train_dot_pusht_image", NO_WEIGHTS),
        ("train_dot_pusht_image_only", NO_WEIGHTS),
        ("train_dot_pusht_image_human", []),
    ],
)
def test_other_tasks_train_and_resume(tmp_path, overrides, name, changes):
    short = [*overrides, *changes]
    short += [*SMALL_BATCHES, "training.num_epochs=1", "training.max_train_steps=2"]
    train(tmp_path / "run", short, name)
    longer = [*short, "training.num_epochs=2"]
    assert train(tmp_path / "run", longer, name).global_step == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["train_act_pusht", "train_act_seed_pusht_image", "train_bc_pusht_image"]
)
def test_other_methods_train_and_resume(tmp_path, name):
    demos = make_demos(tmp_path / "demos.zarr")
    short = tiny_overrides(demos, tmp_path / "cache", tiny_policy(name))
    short += [*SMALL_BATCHES, "training.num_epochs=1", "training.max_train_steps=2"]
    train(tmp_path / "run", short, name)
    longer = [*short, "training.num_epochs=2"]
    assert train(tmp_path / "run", longer, name).global_step == 4


@pytest.mark.slow
def test_spatial_policy_trains_its_adapters_alone(tmp_path, overrides):
    short = [*overrides, *NO_WEIGHTS, *SMALL_BATCHES]
    short += ["training.num_epochs=1", "training.max_train_steps=1"]
    workspace = train(tmp_path / "run", short, "train_dot_pusht_spatial")
    assert workspace.model.model.inputs_pos_emb.shape == (1, 13, 16)
    assert workspace.global_step == 1


@pytest.mark.parametrize("where", ["loss", "norm of the gradient"])
def test_non_finite_numbers_stop_before_the_update(tmp_path, overrides, where):
    workspace = TrainWorkspace(compose_config("train_dot_pusht", *overrides), tmp_path / "run")
    before = {name: value.clone() for name, value in workspace.model.state_dict().items()}
    batch = next(iter(workspace.loader))
    if where == "loss":
        batch["action"][0, 0, 0] = float("nan")
    else:
        weight = workspace.model.model.action_head.weight
        weight.register_hook(lambda grad: torch.full_like(grad, float("inf")))
    with pytest.raises(UserError, match=rf"the {where} is \w+ at step 0 \(step 0 of epoch 0\)"):
        workspace.train_step([(workspace.order.part(0), batch)])
    assert_equal_states(before, dict(workspace.model.state_dict()))
    assert not workspace.optimizer.state


@pytest.mark.slow
def test_signal_at_the_end_of_an_epoch_saves_too(tmp_path, overrides, monkeypatch):
    validate = TrainWorkspace._validate

    def interrupted(self, policy):
        os.kill(os.getpid(), signal.SIGTERM)
        return validate(self, policy)

    rare = [*overrides, "training.checkpoint_every=3", "training.checkpoint_minutes=null"]
    train(tmp_path / "whole", rare)
    with monkeypatch.context() as patch:
        patch.setattr(TrainWorkspace, "_validate", interrupted)
        with pytest.raises(SystemExit) as stopped:
            train(tmp_path / "stopped", rare)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert final_state(tmp_path / "stopped")["epoch"] == 1
    train(tmp_path / "stopped", rare)
    assert_equal_states(final_state(tmp_path / "whole"), final_state(tmp_path / "stopped"))


@pytest.mark.slow
def test_output_directory_in_use_is_refused(tmp_path, overrides):
    with OutputLock(tmp_path / "run"):
        result = run_script(tmp_path / "run", overrides)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: output directory")
    assert f"in use by process {os.getpid()}" in result.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.foo=1", "config key training.foo is unknown"),
        ("+training.foo=1", "training.foo is unknown; known keys are"),
        ("+policy.foo=1", "config key policy.foo is unknown"),
        ("+task.dataset.foo=1", "config key task.dataset.foo is unknown"),
        ("training.num_epochs=many", "training.num_epochs"),
        ("training.num_epochs=0", "training.num_epochs is 0; use at least 1"),
        ("training.device=cuda:99", "device 'cuda:99' cannot be used"),
        ("training.device=toaster", "device 'toaster' cannot be used"),
        ("training.precision=fp4", "training.precision is 'fp4'; use auto, fp32, bf16, fp16"),
        ("policy.train_horizon=10", "policy.train_horizon is 10; use at least inference_horizon"),
        ("policy.predict_every_n=30", "policy.predict_every_n is 30"),
        ("task.dataset.path=/nowhere.zarr", "/nowhere.zarr does not exist"),
        ("task.shape_meta.obs.keypoint.shape=[16]", "shape_meta.obs.keypoint has shape [16]"),
        ("task.shape_meta.action.shape=[3]", "shape_meta.action has shape [3]"),
        ("policy.normalization.STATE=ZSCORE", "policy.normalization.STATE is 'ZSCORE'"),
        ("+foo=1", "config key foo is unknown; known keys are name"),
        ("+logging.foo=1", "config key logging.foo is unknown"),
        ("checkpoint.topk.format_str=best.ckpt", "tells checkpoints apart"),
        ("checkpoint.topk.mode=best", "checkpoint.topk.mode is 'best'; use max or min"),
        ("task=pusht_unknown", "pusht_unknown"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, overrides, override, message):
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- the message is what is tested
        TrainWorkspace(compose_config("train_dot_pusht", *overrides, override), tmp_path / "run")
    told = user_message(caught.value)
    assert told is not None, caught.value
    assert message in told
    assert "\n" not in told
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_task_of_the_first_version_trains(tmp_path, overrides):
    old = ["+task.dataset.reader={_target_: diffusion_policy.dataset.pusht_reader.PushTReader}"]
    old += ["task.dataset._target_=diffusion_policy.dataset.replay_dataset.ReplayDataset"]
    old += ["~task.dataset.store", "training.num_epochs=1"]
    result = run_script(tmp_path / "run", [*overrides, *old])
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "checkpoints" / "latest.ckpt").exists()


@pytest.mark.slow
def test_command_tells_a_mistake_and_fails(tmp_path, overrides):
    result = run_script(tmp_path / "run", [*overrides, "training.num_epochs=0"])
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "error: training.num_epochs is 0; use at least 1"
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["--config-name=train_dot_pushed"], "there is no config .*; did you mean train_dot_pusht"),
        (["--config-name=mine"], "there is no config 'mine'; choose one of .*train_dot_pusht, "),
        (["task=pusht_keypoint"], "there is no task .*; did you mean pusht_keypoints?"),
        (["policy=mine"], "there is no policy 'mine'; choose one of .*dot, .*--config-dir"),
    ],
)
def test_unknown_config_names_are_told_the_known_ones(monkeypatch, capsys, arguments, remedy):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    assert end.value.code == 1
    assert re.match(f"error: {remedy}", capsys.readouterr().err)


@pytest.mark.slow
def test_best_checkpoints_can_be_those_of_another_metric(tmp_path, overrides):
    lowest = [*overrides, "checkpoint.topk.monitor_key=val_loss", "checkpoint.topk.mode=min"]
    train(tmp_path / "run", lowest)
    names = {path.name for path in (tmp_path / "run" / "checkpoints").glob("epoch=*")}
    assert len(names) == 3
    assert all("val_loss=" in name for name in names)
    with pytest.raises(UserError, match=r"checkpoint\.topk\.monitor_key is 'typo'"):
        train(tmp_path / "other", [*overrides, "checkpoint.topk.monitor_key=typo"])


@pytest.mark.slow
def test_directory_of_other_settings_is_refused_before_its_first_checkpoint(tmp_path, overrides):
    train(tmp_path / "run", overrides)
    shutil.rmtree(tmp_path / "run/checkpoints")
    log = (tmp_path / "run/logs.json.txt").read_text()
    with pytest.raises(UserError, match=r"config\.yaml does not fit .*optimizer\.lr was"):
        train(tmp_path / "run", [*overrides, "optimizer.lr=0.5"])
    assert (tmp_path / "run/logs.json.txt").read_text() == log


@pytest.mark.slow
def test_checkpoint_of_another_method_is_refused(tmp_path, overrides):
    workspace = train(tmp_path / "run", overrides)
    workspace.cfg.policy._target_ = "diffusion_policy.policy.other.OtherPolicy"
    workspace.save_checkpoint()
    with pytest.raises(UserError, match=r"is of .*OtherPolicy, this run trains"):
        train(tmp_path / "run", overrides)


@pytest.mark.slow
def test_checkpoint_of_other_sizes_is_refused(tmp_path, overrides):
    train(tmp_path / "run", overrides)
    with pytest.raises(UserError, match="does not fit this config"):
        train(tmp_path / "run", [*overrides, "policy.dim=32"])


@pytest.mark.slow
def test_resume_false_protects_an_earlier_run(tmp_path, overrides):
    train(tmp_path / "run", overrides)
    with pytest.raises(UserError, match=r"training.resume is false but .*latest.ckpt exists"):
        train(tmp_path / "run", [*overrides, "training.resume=false"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("policy.dropout=2", "policy"),
        ("policy.n_layers=few", "policy cannot be built: TypeError: "),
        ("policy._target_=foo.Bar", "policy._target_ is 'foo.Bar', which cannot be imported: "),
        ("+optimizer.foo=1", "config key optimizer.foo is unknown"),
        ("optimizer.lr=-1", "optimizer cannot be built: ValueError: Invalid learning rate"),
        ("training.lr_scheduler=cosin", "training.lr_scheduler is 'cosin'; use one of constant"),
    ],
)
def test_what_a_class_does_not_take_is_told_in_one_line(tmp_path, overrides, override, message):
    with pytest.raises((UserError, InstantiationException)) as caught:
        TrainWorkspace(compose_config("train_dot_pusht", *overrides, override), tmp_path / "run")
    told = user_message(caught.value)
    assert told is not None, caught.value
    assert told.startswith(message)
    assert "\n" not in told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "smaller"),
    [
        ("train_diffusion_unet_pusht", []),
        ("train_diffusion_transformer_pusht", []),
        ("train_diffusion_unet_pusht_image", [*SMALL_BATCHES, "policy.obs_encoder.crop=[32,32]"]),
        ("train_dot_pusht_image", [*SMALL_BATCHES, "policy.image_size=[32,32]"]),
    ],
)
def test_policies_resume_exactly(tmp_path, demos, monkeypatch, name, smaller):
    short = [*tiny_overrides(demos, tmp_path / "cache", tiny_policy(name)), *smaller]
    short += ["training.max_train_steps=2", "training.num_epochs=2", "task.env_runner.n_test=1"]
    train(tmp_path / "whole", short, name)
    whole_step = TrainWorkspace.train_step

    def interrupted(self, batches):
        os.kill(os.getpid(), signal.SIGTERM)
        return whole_step(self, batches)

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(TrainWorkspace, "train_step", interrupted)
            with pytest.raises(SystemExit):
                train(tmp_path / "stopped", short, name)
    assert final_state(tmp_path / "stopped")["global_step"] == 2
    train(tmp_path / "stopped", short, name)
    assert_equal_states(final_state(tmp_path / "whole"), final_state(tmp_path / "stopped"))


@pytest.mark.slow
@pytest.mark.parametrize("network", ["unet", "transformer"])
@pytest.mark.parametrize("encoder", ["", "_hybrid"])
def test_image_diffusion_policies_train(tmp_path, demos, network, encoder):
    if encoder:
        pytest.importorskip("robomimic")
    name = f"train_diffusion_{network}{encoder}_pusht_image"
    short = tiny_overrides(demos, tmp_path / "cache", tiny_policy(name))
    short += ["training.max_train_steps=1", "training.max_val_steps=1", "training.num_epochs=1"]
    short += ["dataloader.batch_size=4", "val_dataloader.batch_size=4", "task.env_runner.n_test=1"]
    short += ["task.env_runner.n_test_vis=0", "checkpoint.topk.k=0"]
    train(tmp_path / "run", short, name)
    policy, _ = load_policy(tmp_path / "run" / "checkpoints" / "latest.ckpt")
    assert not policy.training


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("train_dot_pusht", "policy.n_layers=1"),
        ("train_diffusion_transformer_pusht", "policy.n_layer=1"),
    ],
)
def test_compiled_networks_train_alike_and_keep_the_names_of_their_weights(
    tmp_path, demos, name, layers
):
    # Compiling takes most of the time, and grows with the layers.
    small = [*tiny_overrides(demos, tmp_path / "cache", tiny_policy(name)), layers]
    losses, names = [], []
    torch._dynamo.utils.counters.clear()
    for compiled in ("false", "true"):
        cfg = compose_config(
            name, *small, "training.max_train_steps=2", f"training.compile={compiled}"
        )
        workspace = TrainWorkspace(cfg, tmp_path / compiled)
        losses.append([workspace.train_step(batches) for batches in workspace._rest_of_epoch()])
        workspace.save_checkpoint()
        state = final_state(tmp_path / compiled)
        names.append([list(state[part]) for part in ("model", "ema_model")])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert names[0] == names[1]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_finite_weights(tmp_path, demos, precision):
    name = "train_diffusion_unet_pusht"
    short = tiny_overrides(demos, tmp_path / "cache", tiny_policy(name))
    workspace = TrainWorkspace(
        compose_config(name, *short, f"training.precision={precision}"), tmp_path / "run"
    )
    before = {key: value.clone() for key, value in workspace.model.named_parameters()}
    for batches in workspace._rest_of_epoch():
        workspace.train_step(batches)
    after = dict(workspace.model.named_parameters())
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(before[key], after[key]) for key in before)
    assert workspace.scaler.is_enabled() == (precision == "fp16")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["policy.horizon=15"], "policy.horizon is 15; "),
        (["policy.n_obs_steps=17"], "policy.n_obs_steps is 17; use 1..horizon (16)"),
        (["policy.n_action_steps=16"], "policy.n_action_steps is 16; use 1..horizon - n_obs_steps"),
        (["policy.conditioning=film"], "policy.conditioning is 'film'; use global or local or"),
        (["policy.noise_scheduler.sampler=ddpn"], "policy.noise_scheduler.sampler is 'ddpn'"),
        (["policy.noise_scheduler.num_inference_steps=200"], "num_inference_steps is 200; use at"),
        (["task=pusht_image"], "use policy/obs_encoder=plain"),
        (
            ["task=pusht_image", "policy/obs_encoder=plain", "policy.obs_encoder.crop=[97,97]"],
            "policy.obs_encoder.crop is [97, 97]; ",
        ),
        (["policy.normalization.ACTION=MEAN_STD"], "policy.normalization.ACTION is 'MEAN_STD'; "),
        (
            ["task=pusht_image", "policy.normalization.VISUAL=MEAN_STD"],
            "policy.normalization.VISUAL is 'MEAN_STD'; use MIN_MAX",
        ),
        (
            ["policy.conditioning=local", "policy.pred_action_steps_only=true"],
            "policy.pred_action_steps_only is True; ",
        ),
        (
            [
                "task=pusht_image",
                "policy/obs_encoder=plain",
                "policy.conditioning=inpaint",
            ],
            "policy.conditioning is 'inpaint'; ",
        ),
    ],
)
def test_mistakes_in_diffusion_settings_are_told_in_one_line(tmp_path, demos, overrides, message):
    tiny = tiny_overrides(demos, tmp_path / "cache", ["policy.down_dims=[16,32]"])
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- the message is what is tested
        TrainWorkspace(
            compose_config("train_diffusion_unet_pusht", *tiny, *overrides), tmp_path / "run"
        )
    told = user_message(caught.value)
    assert told is not None, caught.value
    assert message in told
    assert "\n" not in told
