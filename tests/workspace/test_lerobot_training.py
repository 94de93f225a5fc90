"""The main job from LeRobot data sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow")

from diffusion_policy.dataset.stores.lerobot.writer import LeRobotWriter
from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.env.pusht.observations import agent_pos, environment_state
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from tests.configs import compose_config, tiny_overrides
from tests.demos import make_demos


def convert(demos: Path, root: Path, version: str, published: bool = False) -> Path:
    """Recorded states and actions as they are, or what lerobot/pusht_keypoints has of them."""
    store = open_store(demos)
    starts = [0, *store.episode_ends[:-1]]
    with LeRobotWriter(root, 10, version) as writer:
        for first, end in zip(starts, store.episode_ends, strict=True):
            steps = np.arange(first, end)
            state, action = (np.asarray(store.read(key, steps)) for key in ("state", "action"))
            values = {"state": state, "action": action}
            if published:
                values = {
                    "observation.state": agent_pos(state),
                    "observation.environment_state": environment_state(state),
                    "action": action,
                    "next.reward": np.zeros(len(steps), np.float32),
                }
            writer.add_episode(values)
    return root


def trained(data: Path, folder: Path) -> dict[str, torch.Tensor]:
    config = compose_config(
        "train_dot_pusht",
        "task=pusht_lerobot",
        *tiny_overrides(data, folder / "cache"),
        "training.num_epochs=1",
        "task.env_runner=null",
    )
    workspace = TrainWorkspace(config, folder / "run")
    workspace.run()
    return workspace.model.state_dict()


@pytest.mark.slow
def test_weights_do_not_depend_on_the_format(tmp_path):
    demos = make_demos(tmp_path / "demos.zarr")
    wanted = trained(demos, tmp_path / "zarr")
    forms = {
        "v2.1": convert(demos, tmp_path / "v21", "v2.1"),
        "v3.0": convert(demos, tmp_path / "v30", "v3.0"),
        "published": convert(demos, tmp_path / "keypoints", "v3.0", published=True),
    }
    for name, root in forms.items():
        found = trained(root, tmp_path / name)
        assert found.keys() == wanted.keys()
        for key, weights in wanted.items():
            assert torch.equal(found[key], weights), f"{name}: {key}"
