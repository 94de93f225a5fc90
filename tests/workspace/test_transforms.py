"""From recorded poses to raw actions: training, checkpoint and agent share the transforms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scipy.spatial.transform import Rotation

from diffusion_policy.agent.local import LocalAgent, load_agent
from diffusion_policy.checkpoint.saved_policy import SavedPolicy
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.transforms.action_frame import VectorFrame
from diffusion_policy.transforms.pipeline import Pipeline
from diffusion_policy.util.errors import UserError
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from tests.configs import compose_config, tiny_policy
from tests.policy.test_contract import make_policy

ROOM = "diffusion_policy.transforms"
TASK = {
    "name": "arm",
    "fps": 20,
    "embodiment": "arm",
    "shape_meta": {
        "obs": {
            "eef_pos": {"shape": [3]},
            "eef_quat": {"shape": [4], "rotation_rep": "quaternion"},
        },
        "action": {
            "shape": [7],
            "parts": [
                {"name": "position", "size": 3, "representation": "position"},
                {"name": "rotation", "size": 3, "representation": "axis_angle"},
                {"name": "gripper", "size": 1, "representation": "gripper"},
            ],
        },
    },
    "transforms": [
        {
            "_target_": f"{ROOM}.action_frame.PoseFrame",
            "now_position": "eef_pos",
            "now_rotation": "eef_quat",
        },
        {
            "_target_": f"{ROOM}.rotation_representation.RotationRepresentation",
            "key": "action",
            "part": "rotation",
        },
        {
            "_target_": f"{ROOM}.rotation_representation.RotationRepresentation",
            "key": "eef_quat",
        },
    ],
    "dataset": {
        "_target_": "diffusion_policy.dataset.window_dataset.WindowDataset",
        "val_ratio": 0.3,
    },
    "env_runner": None,
}


def record(path: Path) -> Path:
    buffer = ReplayBuffer.create_from_path(path, mode="a")
    rng = np.random.default_rng(0)
    for length in (20, 25, 30):
        position = np.cumsum(rng.normal(0, 0.02, (length + 1, 3)), axis=0)
        rotation = Rotation.from_rotvec(np.cumsum(rng.normal(0, 0.1, (length + 1, 3)), axis=0))
        action = [position[1:], rotation[1:].as_rotvec(), rng.integers(0, 2, (length, 1))]
        buffer.add_episode(
            {
                "eef_pos": position[:-1].astype(np.float32),
                "eef_quat": rotation[:-1].as_quat().astype(np.float32),
                "action": np.concatenate(action, axis=1).astype(np.float32),
            }
        )
    return path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return record(tmp_path_factory.mktemp("arm") / "arm.zarr")


def config(recorded: Path, name: str, *overrides: str):
    cfg = compose_config(name, *tiny_policy(name), *overrides)
    OmegaConf.set_struct(cfg, False)
    cfg.task = {**TASK, "dataset": {**TASK["dataset"], "path": str(recorded)}}
    cfg.training.update(device="cpu", precision="fp32", num_threads=1, max_steps=2)
    cfg.dataloader.batch_size = 8
    cfg.policy.normalization = {"STATE": "MIN_MAX", "ACTION": "MIN_MAX"}
    return cfg


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("train_diffusion_unet_pusht", ()),
        ("train_dot_pusht", ["policy.alpha=0"]),
    ],
)
def test_an_agent_undoes_what_training_did(tmp_path, recorded, name, overrides):
    workspace = TrainWorkspace(config(recorded, name, *overrides), tmp_path / "run")
    assert workspace.model.shape_meta.action.shape == (10,)
    assert workspace.model.shape_meta.obs["eef_quat"].shape == (6,)
    workspace.run()
    assert workspace.global_step == 2

    agent = load_agent(workspace.get_checkpoint_path(), "cpu")
    assert agent.spec.action.shape == (7,)
    assert agent.fps == 20
    raw = workspace.dataset.store
    observation = {key: raw.read(key, np.arange(1))[0] for key in TASK["shape_meta"]["obs"]}
    agent.reset(seeds=[3])
    actions = agent.act(observation)

    policy, pipeline = workspace.policy.eval(), workspace.pipeline
    obs = {
        key: np.repeat(value[None, None], len(policy.obs_offsets), axis=1)
        for key, value in observation.items()
    }
    seen = pipeline.observe(obs)
    policy.reset([0], seeds=[3])
    inputs = {key: torch.from_numpy(value) for key, value in seen[-1].items()}
    with torch.no_grad():
        predicted = policy.predict_action(inputs, env_ids=[0])["action"]
    expected = pipeline.inverse(predicted.numpy(), seen)[0]
    assert expected.shape == (policy.n_action_steps, 7)
    np.testing.assert_allclose(actions.action, expected, atol=1e-4)


def test_normalised_values_are_those_of_relative_actions(tmp_path, recorded):
    name = "train_diffusion_unet_pusht"
    workspace = TrainWorkspace(config(recorded, name), tmp_path / "run")
    normalizer = workspace.model.normalizer["action"]
    chunks = workspace.dataset.training_values("action")
    low, high = (normalizer.normalize(torch.from_numpy(x(chunks, 0))) for x in (np.min, np.max))
    torch.testing.assert_close(low[:3], -torch.ones(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(high[:3], torch.ones(3), atol=1e-4, rtol=0)
    # The rotation and the gripper are left alone.
    scale = normalizer.params_dict["scale"]
    assert scale[3:].tolist() == [1] * 7
    assert np.abs(chunks[:, :3]).max() < 1  # metres from where the hand is, not from the origin


@pytest.mark.slow
def test_actions_of_several_observations_are_not_mixed(tmp_path, recorded):
    for name, overrides, setting in (
        ("train_dot_pusht", ["policy.alpha=0.5"], "policy.alpha"),
        ("train_dot_pusht", ["policy.alpha=0", "policy.predict_every_n=2"], "policy.predict_every"),
        (
            "train_diffusion_unet_pusht",
            ["policy.conditioning=inpaint", "policy.past_action_visible=true"],
            "policy.past_action_visible",
        ),
    ):
        with pytest.raises(UserError, match=f"but {setting}.* mixes actions of several obs"):
            TrainWorkspace(config(recorded, name, *overrides), tmp_path / "run")


@pytest.mark.parametrize("setting", ["return_every_n=2", "stall_skip=2"])
def test_actions_that_follow_each_other_are_not_skipped(setting):
    policy = make_policy("train_dot_pusht", "policy.alpha=0", f"policy.{setting}")
    frame = VectorFrame(now="agent_pos", target="delta")
    pipeline = Pipeline.of([frame], policy.shape_meta)
    with pytest.raises(UserError, match=f"policy.{setting.partition('=')[0]}.* skips actions"):
        LocalAgent(policy, pipeline)


def test_an_agent_refuses_it_too(tmp_path, recorded):
    cfg = config(recorded, "train_dot_pusht", "policy.alpha=0")
    workspace = TrainWorkspace(cfg, tmp_path / "run")
    saved = SavedPolicy.read(workspace.save_checkpoint())
    saved.cfg.policy.alpha = 0.5
    with pytest.raises(UserError, match=r"policy\.alpha mixes actions"):
        LocalAgent(saved.build(), saved.pipeline())
