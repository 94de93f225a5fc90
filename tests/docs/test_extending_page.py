"""The method of docs/extending.md, and one with language, train and act as every other policy."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

import train as train_script
from diffusion_policy.agent.local import load_agent
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.scripts import new_task
from diffusion_policy.workspace.config_check import check_known_keys
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from tests.configs import TINY_DOT, compose_config, tiny_overrides
from tests.toys.toy_language_policy import SHAPE_META as LANGUAGE_META

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
POSITION_META = {"obs": {"position": {"shape": [2]}}, "action": {"shape": [2]}}
LANGUAGE = {
    "_target_": "tests.toys.toy_language_policy.LanguagePolicy",
    "shape_meta": "${task.shape_meta}",
}


@pytest.fixture
def method_of_the_page(tmp_path, monkeypatch) -> dict[str, Any]:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    section = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[-1])
    package, module, _ = section["_target_"].split(".")
    (tmp_path / package).mkdir()
    (tmp_path / package / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    return section


def train(section: dict[str, Any], shape_meta: dict[str, Any], folder: Path) -> list[dict]:
    """Records of the log of a short run on two episodes, without a simulator."""
    buffer = ReplayBuffer.create_from_path(folder / "demos.zarr", mode="a")
    rng = np.random.default_rng(0)
    for text in ("push the T", "wait"):
        episode = {"position": rng.random((25, 2)), "action": rng.random((25, 2))}
        buffer.add_episode({**episode, "task": np.array([text] * 25)})
    cfg = compose_config("train_dot_pusht", *tiny_overrides(folder, folder, []))
    cfg.policy = section
    cfg.task.shape_meta = shape_meta
    cfg.task.env_runner = None
    cfg.task.dataset = {
        "_target_": "diffusion_policy.dataset.window_dataset.WindowDataset",
        "path": str(folder / "demos.zarr"),
        "val_ratio": 0.5,
    }
    OmegaConf.resolve(cfg)
    TrainWorkspace(cfg, folder / "run").run()
    return [json.loads(line) for line in (folder / "run/logs.json.txt").read_text().splitlines()]


@pytest.mark.slow
def test_the_method_of_the_page_trains_and_acts(tmp_path, method_of_the_page):
    log = train(method_of_the_page, POSITION_META, tmp_path)
    assert any("mean_error" in key for record in log for key in record)
    agent = load_agent(tmp_path / "run/checkpoints/latest.ckpt", "cpu", trust=True)
    action = agent.act({"position": np.zeros(2, np.float32)}).action
    assert action.shape == (1, 2)


@pytest.mark.slow
def test_a_policy_with_language_trains_and_acts_as_it_is_told(tmp_path):
    log = train(LANGUAGE, LANGUAGE_META, tmp_path)
    assert any("first_action_error" in key for record in log for key in record)
    actions = []
    for text in ("push the T", "wait"):
        agent = load_agent(tmp_path / "run/checkpoints/latest.ckpt", "cpu", trust=True)
        observation = {"position": np.zeros(2, np.float32), "task": text}
        actions.append(torch.from_numpy(agent.act(observation).action))
    assert actions[0].shape == (2, 2)
    assert not torch.equal(*actions)


@pytest.mark.slow
def test_a_new_task_trains_as_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    new_task.main(["walk_there"])
    importlib.import_module("walk_there.record").main()
    arguments = ["--config-dir=walk_there/config", "--config-name=train_dot", "task=walk_there"]
    few = ["dataloader.batch_size=8", "val_dataloader.batch_size=8", "task.env_runner.n_workers=1"]
    words = [*arguments, "training.debug=true", "hydra.run.dir=run", *few, *TINY_DOT]
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    assert train_script.main() is None
    last = json.loads(Path("run/logs.json.txt").read_text().splitlines()[-1])
    assert 0 <= last["test/mean_score"] <= 1
    agent = load_agent("run/checkpoints/latest.ckpt", "cpu")  # of this package's policies
    observation = {"position": np.zeros(2, np.float32), "goal": np.ones(2, np.float32)}
    assert agent.act(observation).action.shape == (1, 2)


@pytest.mark.parametrize("name", ["my-task", "MyTask", "class", "../there", "taken"])
def test_a_new_task_is_not_written_over_something(tmp_path, capsys, name):
    (tmp_path / "taken").mkdir()
    with pytest.raises(SystemExit):
        new_task.main([name, "--folder", str(tmp_path)])
    assert capsys.readouterr().err.startswith("error: ")
    assert [path.name for path in tmp_path.rglob("*")] == ["taken"]


def test_the_printed_commands_find_a_task_in_another_folder(tmp_path, capsys):
    folder = tmp_path / "my tasks"
    new_task.main(["walk_away", "--folder", str(folder)])
    said = capsys.readouterr().out.splitlines()
    assert said[1].strip() == f"export PYTHONPATH='{folder}'"
    assert f"--config-dir='{folder}/walk_away/config'" in said[3]


def test_the_task_of_the_page_is_complete(tmp_path):
    """What the page leaves out has a default; the page's settings are known."""
    (tmp_path / "task").mkdir()
    example = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]
    (tmp_path / "task/my_task.yaml").write_text(example)
    search = f"hydra.searchpath=[file://{tmp_path}]"
    for name in ("train_dot", "train_diffusion_unet"):
        check_known_keys(compose_config(name, search, "task=my_task"))
