"""The examples of docs/data.md run unchanged."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.workspace.measures import action_error
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from tests.configs import compose_config, tiny_overrides, tiny_policy
from tests.states import assert_equal_states

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


@pytest.mark.slow
def test_the_examples_make_and_load_a_data_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make, load = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    exec(make, {})
    for name in ("reach.zarr", "reach.zarr.zip"):
        buffer = ReplayBuffer.create_from_path(Path("data/mine") / name)
        assert buffer.episode_lengths.tolist() == [40, 40, 40]
    exec(load, {})
    printed = capsys.readouterr().out
    assert "'agent_pos': (2, 2), 'image': (2, 3, 96, 96)" in printed
    assert "torch.Size([16, 2])" in printed


def yaml_examples() -> list[dict]:
    return [
        yaml.safe_load(e) for e in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    ]


def test_the_parts_of_the_example_parse():
    action = TaskSpec.parse({"obs": {}, **yaml_examples()[0]}).action
    modes = [part.normalization for part in action.normalized_parts({"ACTION": "MIN_MAX"})]
    assert modes == ["MIN_MAX", "IDENTITY", "IDENTITY"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train_dot_pusht", "train_diffusion_unet_pusht"])
def test_the_mixture_of_the_example_trains(tmp_path, name):
    section = yaml_examples()[1]["dataset"]
    rng = np.random.default_rng(0)
    for i, dataset in enumerate(section["datasets"].values()):
        dataset["path"] = str(tmp_path / Path(dataset["path"]).name)
        buffer = ReplayBuffer.create_from_path(dataset["path"], mode="a")
        for _ in range(2):
            widths = {"agent_pos": 2, "keypoint": 18, "action": 2}
            buffer.add_episode({k: rng.random((25, n)) * 10**i for k, n in widths.items()})
    cfg = compose_config(name, *tiny_overrides(tmp_path, tmp_path / "cache", tiny_policy(name)))
    cfg.task.dataset = section
    workspace = TrainWorkspace(cfg, tmp_path / "run")
    loader, order = iter(workspace.loader), workspace.order
    losses = [workspace.train_step([(order.part(i), next(loader))]) for i in range(2)]
    assert all(map(math.isfinite, losses))
    error = action_error(workspace.policy, workspace.dataset, order, workspace.device, seed=0)
    assert math.isfinite(error)
    workspace.save_checkpoint()

    resumed = TrainWorkspace(cfg, tmp_path / "run")
    resumed.load_checkpoint(workspace.get_checkpoint_path())
    assert resumed.model.normalizer.embodiment_names == ("large_arm", "small_arm")
    assert_equal_states(dict(workspace.model.state_dict()), dict(resumed.model.state_dict()))
