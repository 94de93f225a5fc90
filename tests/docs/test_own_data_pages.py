"""The commands of the pages on other people's data run, one after another."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

import train as train_script
from diffusion_policy.agent.local import load_agent
from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.inspection.checks import CHECKS
from tests.configs import TINY_ACT, compose_config
from tests.dataset.stores.hdf5_files import write_robomimic
from tests.dataset.stores.lerobot.golden import golden_copy

DOCS = Path(__file__).parents[2] / "docs"


def commands(page: str) -> Iterator[list[str]]:
    """The words of each command in the blocks of a page."""
    text = (DOCS / page).read_text()
    for _, block in re.findall(r"```(\w*)\n(.*?)```", text, flags=re.DOTALL):
        for line in block.splitlines():
            if line.startswith("python "):
                yield shlex.split(line)


def run(words: list[str]) -> None:
    """Run ``python -m MODULE ...`` in this process."""
    assert words[:2] == ["python", "-m"]
    importlib.import_module(words[2]).main(words[3:])


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """The data sets that the pages name, below the current folder."""
    monkeypatch.chdir(tmp_path)
    golden_copy("v21", tmp_path).rename(tmp_path / "arm")
    (tmp_path / "data").mkdir()
    (tmp_path / "arm").rename(tmp_path / "data/arm")
    write_robomimic(tmp_path / "data/lift.hdf5", (12, 9, 14))
    return tmp_path / "data"


SHORT = [
    *("training.debug=true", "training.device=cpu", "hydra.run.dir=run", "training.num_threads=1"),
    *("dataloader.batch_size=4", "val_dataloader.batch_size=4", "policy.chunk_size=4", *TINY_ACT),
]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["arm", "lift.hdf5"])
def test_three_commands_lead_to_a_policy_folder(data, monkeypatch, source):
    make, train, export, *_ = commands("own_data.md")
    if source != "arm":
        (data / "arm").rename(data / "v21")
        (data / source).rename(data / "arm")
    run(make)
    assert train[:2] == ["python", "train.py"]
    monkeypatch.setattr(sys, "argv", [*train[1:], *SHORT])
    train_script.main()
    log = [json.loads(line) for line in Path("run/logs.json.txt").read_text().splitlines()]
    assert any("val_loss" in record for record in log)
    best = min(Path("run/checkpoints").glob("*val_loss*"))
    run([w.replace("data/outputs/<run>/checkpoints/<best>.ckpt", str(best)) for w in export])
    agent = load_agent("data/policies/my_arm", "cpu")
    store = open_store("data/arm")
    observation = {
        key: np.asarray(store.read(key, np.arange(1)))[0]
        for key, field in store.features.items()
        if key != "action" and field.type in ("rgb", "low_dim") and not key.startswith("next.")
    }
    assert agent.act(observation).action.shape[-1] == store.features["action"].size


@pytest.mark.slow
def test_the_choice_of_steps_and_episodes_composes(data, monkeypatch):
    make, _, _, choose = commands("own_data.md")
    run(make)
    monkeypatch.setattr(sys, "argv", [*choose[1:], *SHORT])
    train_script.main()
    config = yaml.safe_load(Path("run/.hydra/config.yaml").read_text())
    assert config["task"]["dataset"]["exclude_episodes"] == [1]
    assert config["task"]["dataset"]["drop_first"] == 2


def test_the_action_of_the_page_is_another_array(data):
    example = re.findall(r"```yaml\n(.*?)```", (DOCS / "own_data.md").read_text(), re.DOTALL)
    with h5py.File("data/lift.hdf5", "r+") as file:
        for demo in file["data"].values():
            demo["actions_abs"] = np.full((len(demo["actions"]), 10), 3.0)
    section = yaml.safe_load(example[0])["dataset"]
    section["store"].pop("_partial_")
    module, _, name = section["store"].pop("_target_").rpartition(".")
    store = getattr(importlib.import_module(module), name)(section["path"], **section["store"])
    assert store.features["action"].shape == (10,)
    assert compose_config("train_act", "+task.dataset.filter=20_percent")


@pytest.mark.slow
def test_the_commands_that_look_and_repair_run(data, capsys):
    look, repair = commands("inspect_data.md")
    run(look)
    assert Path("arm.html").is_file()
    golden_copy("v21", data).rename(data / "broken")
    (data / "broken/data/chunk-000/episode_000002.parquet").write_bytes(b"PAR1")
    run(repair)
    assert "episode 2: dropped" in capsys.readouterr().out
    assert open_store("data/broken_repaired").episode_ends.tolist() == [12, 21]


def test_every_check_is_told():
    told = re.findall(r"^\| ([a-z ]+) \|", (DOCS / "inspect_data.md").read_text(), re.MULTILINE)
    assert told == ["check", "cannot be read", *CHECKS]


@pytest.mark.slow
def test_the_conversions_and_edits_of_the_page_run(data):
    for command in commands("convert_data.md"):
        run(command)
    assert np.diff(open_store("data/clean").episode_ends, prepend=0).tolist() == [12, 15]
    assert open_store("data/clean").episode(0).task == "put the cube in the box"
    halves = open_store("data/halves")
    assert np.diff(halves.episode_ends, prepend=0).tolist() == [6, 6, 9, 15]
    assert "observation.images.wrist" not in halves.features
    assert len(open_store("data/both").episode_ends) == 5
    expected = open_store("data/arm")
    for target in ("arm.zarr", "arm_v3", "arm_groot"):
        found = open_store(data / target)
        assert found.episode_ends.tolist() == expected.episode_ends.tolist()
        steps = np.arange(found.n_steps)
        for key in ("observation.state", "action"):
            np.testing.assert_array_equal(found.read(key, steps), expected.read(key, steps))
    assert open_store("data/lift_v2").episode(0).task == "lift the cube"
