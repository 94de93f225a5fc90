"""Training without a simulator: what it keeps, says and draws."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from diffusion_policy.dataset.stores.memory_store import MemoryStore
from diffusion_policy.dataset.window_dataset import WindowDataset
from diffusion_policy.env_runner.env_runner import EnvRunner
from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.spec.task_spec import Field, Part
from diffusion_policy.spec.window import Window
from diffusion_policy.util.json_logger import read_log
from diffusion_policy.workspace.base_runner import BaseRunner
from diffusion_policy.workspace.launches import read_launches
from diffusion_policy.workspace.open_loop import open_loop
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from diffusion_policy.workspace.training_config import TrainingConfig, apply_debug
from diffusion_policy.workspace.training_report import action_curves, action_names
from tests.configs import compose_config, tiny_overrides
from tests.demos import make_demos


@pytest.fixture(scope="module")
def demos(tmp_path_factory) -> Path:
    return make_demos(tmp_path_factory.mktemp("demos") / "demos.zarr")


@pytest.fixture
def overrides(demos, tmp_path) -> list[str]:
    return [*tiny_overrides(demos, tmp_path / "cache"), "task.env_runner=null"]


def train(output_dir: Path, overrides: list[str], name: str = "train_dot_pusht") -> float | None:
    return TrainWorkspace(compose_config(name, *overrides), output_dir).run()


def kept(run: Path) -> set[str]:
    return {path.name for path in (run / "checkpoints").glob("epoch=*")}


@pytest.mark.slow
def test_run_keeps_the_least_validation_loss_and_says_so(tmp_path, overrides, capsys):
    run = tmp_path / "run"
    score = train(run, [*overrides, "checkpoint.topk.k=1"])
    losses = [r["val_loss"] for r in read_log(run / "logs.json.txt") if "val_loss" in r]
    assert score == losses[-1]
    epoch = int(np.argmin(losses))
    assert kept(run) == {f"epoch={epoch:04d}-val_loss={min(losses):.3f}.ckpt"}
    last = capsys.readouterr().out.splitlines()[-1]
    steps = 4 * (epoch + 1)
    assert f"best validation loss {min(losses):.4g} after {steps} steps, in {run}/ch" in last
    assert last.endswith(f"{run / 'report.html'}")
    assert not (run / "media").exists()


@pytest.mark.slow
def test_page_needs_no_other_file_and_is_whole_when_it_is_moved(tmp_path, overrides):
    run = tmp_path / "run"
    train(run, overrides)
    page = (run / "report.html").read_text()
    links = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert len(links) == 2  # losses and actions; there are no images to show
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert "best validation loss" in page
    assert "episodes held out from training" in page
    told = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page.replace("<wbr>", "")))
    assert (told["device"], told["seed"]) == ("cpu", "42")
    assert told["commit"] == read_launches(run)[-1]["commit"]


@pytest.mark.slow
def test_page_shows_frames_of_what_a_policy_saw(tmp_path, overrides):
    short = [*overrides, "dataloader.batch_size=2", "val_dataloader.batch_size=2"]
    short += ["training.max_steps=1", "training.max_val_steps=1", "training.use_ema=false"]
    train(tmp_path / "run", short, "train_dot_pusht_image_human")
    assert "What the policy saw" in (tmp_path / "run/report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (["checkpoint.topk.monitor_key=train_loss", "checkpoint.topk.k=1"], "train_loss"),
        (["task.dataset.val_ratio=0"], None),
    ],
)
def test_another_metric_or_none_chooses_what_is_kept(tmp_path, overrides, capsys, extra, expected):
    train(tmp_path / "run", [*overrides, *extra])
    names = kept(tmp_path / "run")
    assert len(names) == (expected is not None)
    assert all(f"-{expected}=" in name for name in names)
    kind = "validation loss" if expected else "training loss"
    assert capsys.readouterr().out.splitlines()[-1].startswith(kind)


@pytest.mark.slow
def test_finished_run_is_told_from_its_counters(tmp_path, overrides, capsys, monkeypatch):
    run = tmp_path / "run"
    train(run, overrides)
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", None)  # nothing is built or loaded
    cfg = compose_config("train_dot_pusht", *overrides)
    from diffusion_policy.workspace.train_workspace import _finished_state

    assert _finished_state(cfg, run) is not None
    assert not _finished_state(
        compose_config("train_dot_pusht", *overrides, "training.num_epochs=4"), run
    )
    assert not _finished_state(
        compose_config("train_dot_pusht", *overrides, "training.max_steps=13"), run
    )


class KnowingPolicy(BasePolicy):
    """Predicts what was recorded, which the observation of these data tells."""

    def __init__(self) -> None:
        super().__init__({"obs": {"x": {"shape": [1]}}, "action": {"shape": [2]}})
        self.window = Window(obs_offsets=(-1, 0), action_offsets=(-1, 0, 1, 2))
        self.n_action_steps = 3
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def compute_loss(self, batch):
        raise NotImplementedError

    def predict_action(self, obs, env_ids=None):
        x = obs["x"][:, -1:] + torch.tensor(self.action_pred_offsets)[:, None]
        action = torch.cat([x, -x], dim=-1)
        return {"action": action[:, 1:], "action_pred": action}


class SkippingPolicy(KnowingPolicy):
    """Executes every other step of what it predicts."""

    action_pred_offsets = (1,)

    def __init__(self) -> None:
        super().__init__()
        self.n_action_steps = 1

    def predict_action(self, obs, env_ids=None):
        x = obs["x"][:, -1:] + 1
        action = torch.cat([x, -x], dim=-1)
        return {"action": action, "action_pred": action}


def test_open_loop_of_a_policy_that_leaves_steps_out():
    x = np.arange(6, dtype=np.float32)
    store = MemoryStore({"x": x[:, None], "action": np.stack([x, -x], 1)}, np.array([6]))
    policy = SkippingPolicy()
    dataset = WindowDataset(store, policy.shape_meta, policy.window, val_ratio=0)
    (episode,) = open_loop(policy, dataset, torch.device("cpu"), seed=0)
    assert episode.error == 0
    assert episode.chunk_steps == [0, 2, 4]
    assert episode.recorded[:, 0].tolist() == x.tolist()
    assert np.flatnonzero(np.isfinite(episode.predicted[:, 0])).tolist() == [1, 3, 5]
    (line,) = [
        line for line in action_curves([episode], policy.shape_meta.action).axes[0].lines[1:]
    ]
    assert line.get_xdata().tolist() == [1, 3, 5]


def test_open_loop_compares_actions_of_the_same_step():
    lengths = (5, 9, 7)
    x = np.concatenate([np.arange(n) + 100.0 * i for i, n in enumerate(lengths)])
    store = MemoryStore(
        {"x": x[:, None].astype(np.float32), "action": np.stack([x, -x], 1).astype(np.float32)},
        np.cumsum(lengths),
    )
    policy = KnowingPolicy().train()
    dataset = WindowDataset(store, policy.shape_meta, policy.window, val_ratio=0)
    episodes = open_loop(policy, dataset, torch.device("cpu"), seed=0)
    assert [len(episode.recorded) for episode in episodes] == list(lengths)
    for i, episode in enumerate(episodes):
        assert episode.error == 0
        assert episode.recorded[:, 0].tolist() == (np.arange(lengths[i]) + 100 * i).tolist()
        assert episode.chunk_steps == list(range(0, lengths[i], 3))
    assert policy.training


def test_action_names_are_those_of_the_parts():
    parts = (Part("position", 3), Part("gripper", 1))
    names = ["position 0", "position 1", "position 2", "gripper"]
    assert action_names(Field((4,), parts=parts)) == names
    assert action_names(Field((2,))) == ["action 0", "action 1"]


class OwnRunner(BaseRunner):
    """A runner without the arguments of EnvRunner."""

    debug_settings: ClassVar = {"n_trials": 1}

    def __init__(self, n_trials: int = 9, output_dir: Any = None) -> None:
        self.n_trials = n_trials

    def run(self, agent, label=None):
        return {"test/mean_score": float(self.n_trials)}

    def close(self) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("runner", [None, {"_target_": f"{__name__}.OwnRunner", "n_trials": 7}])
def test_debug_asks_each_part_for_its_small_form(tmp_path, overrides, runner):
    cfg = compose_config("train_dot_pusht", *overrides, "training.debug=true")
    cfg.task.env_runner = runner
    workspace = TrainWorkspace(cfg, tmp_path / "run")
    assert workspace.training.num_epochs == 2
    assert workspace.run() == (
        1 if runner else read_log(tmp_path / "run/logs.json.txt")[-1]["val_loss"]
    )
    assert workspace.global_step == 6


def test_debug_settings_are_those_of_each_class():
    cfg = compose_config("train_dot_pusht", "training.max_steps=1000")
    apply_debug(cfg)
    for settings, section in (
        (TrainingConfig.debug_settings, cfg.training),
        (EnvRunner.debug_settings, cfg.task.env_runner),
    ):
        assert settings
        assert all(OmegaConf.to_container(section)[key] == value for key, value in settings.items())
