"""The method of docs/extending.md, and one with language, train and act as every other policy."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from diffusion_policy.agent.local import load_agent
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from tests.configs import compose_config, tiny_overrides
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


def test_the_method_of_the_page_trains_and_acts(tmp_path, method_of_the_page):
    log = train(method_of_the_page, POSITION_META, tmp_path)
    assert any("mean_error" in key for record in log for key in record)
    agent = load_agent(tmp_path / "run/checkpoints/latest.ckpt", "cpu", trust=True)
    action = agent.act({"position": np.zeros(2, np.float32)}).action
    assert action.shape == (1, 2)


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
