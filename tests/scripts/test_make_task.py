"""Tasks that are written from recorded data."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from diffusion_policy.dataset.stores.episode_store import EpisodeInfo
from diffusion_policy.dataset.stores.memory_store import MemoryStore
from diffusion_policy.dataset.task_of_store import check_task, name_of, task_yaml
from diffusion_policy.scripts import make_task
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.train_command import with_own_configs
from diffusion_policy.workspace.config_check import check_known_keys
from tests.configs import compose_config
from tests.dataset.stores.hdf5_files import write_robomimic
from tests.demos import make_demos
from tests.toys.toy_store import TASKS, ToyStore


def test_a_task_names_what_was_recorded(tmp_path):
    path = write_robomimic(tmp_path / "Lift ph.hdf5")
    written = make_task.write_task(str(path), folder=tmp_path / "configs")
    assert written == tmp_path / "configs/task/lift_ph.yaml"
    task = yaml.safe_load(written.read_text())
    assert task == {
        "name": "lift_ph",
        "fps": 20,
        "embodiment": "panda",
        "shape_meta": {
            "obs": {
                "agentview_image": {"shape": [3, 8, 10], "type": "rgb"},
                "robot0_eef_pos": {"shape": [3]},
            },
            "action": {"shape": [7]},
        },
        "transforms": [],
        "dataset": {
            "_target_": "diffusion_policy.dataset.window_dataset.WindowDataset",
            "path": str(path),
            "val_ratio": 0.1,
        },
        "env_runner": None,
    }
    assert '# task: {type: text} # for a policy that reads language; 1 of them, such as "lift' in (
        written.read_text()
    )


def test_all_keys_of_a_task_are_known(tmp_path):
    make_task.write_task(str(make_demos(tmp_path / "demos.zarr", 2)), "my_arm", tmp_path)
    search = f"hydra.searchpath=[file://{tmp_path}]"
    check_known_keys(compose_config("train_dot", search, "task=my_arm"))


def test_large_images_are_made_smaller_by_shape():
    arrays = {
        "wide": np.zeros((2, 480, 640, 3), np.uint8),
        "other": np.zeros((2, 480, 640, 3), np.uint8),
        "small": np.zeros((2, 3, 96, 96), np.uint8),
        "floats": np.zeros((2, 300, 300, 3), np.float32),
        "depth": np.zeros((2, 1, 480, 640), np.uint16),
        "environment_state": np.zeros((2, 4, 4)),
        "action": np.zeros((2, 2)),
        "next.reward": np.zeros(2),
    }
    text = task_yaml(MemoryStore(arrays, [2]), "x.zarr", "x")
    task = yaml.safe_load(text)
    assert task["shape_meta"]["obs"] == {
        "wide": {"shape": [3, 480, 640], "type": "rgb"},
        "other": {"shape": [3, 480, 640], "type": "rgb"},
        "small": {"shape": [3, 96, 96], "type": "rgb"},
        "floats": {"shape": [3, 300, 300], "type": "rgb"},
        "environment_state": {"shape": [16], "modality": "ENV"},
    }
    sizes = [(t["height"], t["width"], t["keys"]) for t in task["transforms"]]
    assert sizes == [(180, 240, ["wide", "other"]), (240, 240, ["floats"])]
    assert "# depth: {shape: [1, 480, 640], type: depth}" in text
    assert task["fps"] is None
    TaskSpec.parse(task["shape_meta"])


def test_the_task_of_a_toy_tells_its_texts():
    text = task_yaml(ToyStore([3, 1, 2]), "toy", "toy")
    assert f'3 of them, such as "{min(TASKS)}"' in text
    assert yaml.safe_load(text)["fps"] == 20


@pytest.mark.parametrize(
    "hostile", ["${oc.env:HOME}", "a: b", "x\n  _target_: os.system", "null", "- a", "é\u2028'\"\\"]
)
def test_names_from_a_file_are_only_names(hostile):
    class Named(MemoryStore):
        embodiment = hostile

    arrays = {hostile: np.zeros((2, 1)), "action": np.zeros((2, 2))}
    text = task_yaml(Named(arrays, [2]), hostile, "x")
    check_task(text)
    task = yaml.safe_load(text)
    assert [*task] == [
        *("name", "fps", "embodiment", "shape_meta", "transforms", "dataset", "env_runner")
    ]
    assert len(task["shape_meta"]["obs"]) == 1
    read = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    assert read["dataset"]["path"] == hostile
    assert [*read["shape_meta"]["obs"]] == [hostile.replace("${", r"\${")]


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"state": np.zeros((2, 1))}, "has no 'action', only state"),
        ({"action": np.zeros((2, 1))}, "holds nothing that a policy can observe"),
    ],
)
def test_data_without_a_task_are_refused(arrays, told):
    with pytest.raises(UserError, match=told):
        task_yaml(MemoryStore(arrays, [2]), "x", "x")


def test_nothing_is_overwritten_and_names_are_names(tmp_path, capsys):
    path = str(make_demos(tmp_path / "demos.zarr", 1))
    make_task.main([path, "--output", str(tmp_path)])
    assert f"--config-dir={tmp_path} --config-name=train_" in capsys.readouterr().out
    for arguments in ([path], [path, "--name", "../up"], [str(tmp_path / "absent.hdf5")]):
        with pytest.raises(SystemExit):
            make_task.main([*arguments, "--output", str(tmp_path)])
        assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("path", "name"),
    [("data/My Arm.zarr.zip", "my_arm"), ("lerobot/pusht", "pusht"), ("/", "my_task")],
)
def test_a_task_is_called_after_its_data(path, name):
    assert name_of(path) == name


def test_a_folder_of_own_configs_is_looked_through(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert with_own_configs(["task=x"]) == ["task=x"]
    (tmp_path / "configs").mkdir()
    assert with_own_configs(["task=x"]) == ["--config-dir=configs", "task=x"]
    assert with_own_configs(["--config-dir=a", "task=x"]) == ["--config-dir=a", "task=x"]


@pytest.mark.parametrize("end", ["\u2028", "\u0085", "\n"])
def test_a_task_text_stays_in_its_comment(end):
    injected = f"push{end}    injected: {{shape: [3]}} #"
    arrays = {"state": np.zeros((2, 3), np.float32), "action": np.zeros((2, 3), np.float32)}
    store = MemoryStore(arrays, [2], episodes=[EpisodeInfo(task=injected)])
    task = yaml.safe_load(task_yaml(store, "x.zarr", "arm"))
    assert task["shape_meta"]["obs"].keys() == {"state"}
