"""A dataset of a user's own: what it must give to be trained on."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_policy.dataset.base_dataset import BaseImageDataset, BaseLowdimDataset
from diffusion_policy.dataset.batch_order import BatchIndex
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.spec.window import Window
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from tests.configs import compose_config, tiny_overrides, tiny_policy


class Constant(BaseImageDataset):
    """Twenty samples of one number each."""

    def __init__(self, shape_meta, window, **_):
        self.n_obs, self.n_actions = len(window.obs_offsets), len(window.action_offsets)
        self.shape_meta = shape_meta

    def __len__(self):
        return 20

    def __getitem__(self, idx):
        obs = {
            key: np.full((self.n_obs, *field.shape), idx, np.float32)
            for key, field in self.shape_meta.obs.items()
        }
        return {"obs": obs, "action": np.full((self.n_actions, 2), idx, np.float32)}

    def get_normalizer(self, modes):
        normalizer = LinearNormalizer()
        samples = [self[i] for i in range(len(self))]
        for key, field in self.shape_meta.obs.items():
            values = np.stack([sample["obs"][key] for sample in samples])
            normalizer.fit({key: values.reshape(-1, *field.shape)})
        normalizer.fit({"action": np.concatenate([sample["action"] for sample in samples])})
        return normalizer


@pytest.mark.slow
def test_a_users_dataset_trains(tmp_path):
    name = "train_diffusion_unet_pusht"
    overrides = tiny_overrides(tmp_path, tmp_path, tiny_policy(name))
    cfg = compose_config(name, *overrides, "task.env_runner.n_test=1")
    cfg.task.dataset = {"_target_": f"{__name__}.Constant", "path": "none"}
    workspace = TrainWorkspace(cfg, tmp_path / "run")
    index = next(iter(workspace.order))
    batch = workspace.dataset.__getitems__(index)
    assert batch["action_is_pad"].shape == batch["action"].shape[:2]
    assert batch["action"][:, 0, 0].tolist() == index.samples.tolist()
    losses = [
        workspace.train_step([(workspace.order.part(i), batch)])
        for i, batch in enumerate(workspace.loader)
    ]
    assert np.isfinite(losses).all()
    assert len(workspace.val_dataset) == 0


@pytest.mark.parametrize("base", [BaseImageDataset, BaseLowdimDataset])
def test_what_must_be_written_is_named(base):
    with pytest.raises(TypeError, match=r"__getitem__.*__len__.*get_normalizer"):
        base()


def test_a_list_of_numbers_gives_samples():
    cfg = compose_config("train_diffusion_unet_pusht")
    dataset = Constant(TaskSpec.parse(cfg.task.shape_meta), Window((0,), (0, 1)))
    assert [int(sample["action"][0, 0]) for sample in dataset.__getitems__([3, 1])] == [3, 1]
    batch = dataset.__getitems__(BatchIndex(np.array([3, 1]), seed=0))
    assert batch["action"][:, 0, 0].tolist() == [3, 1]
    assert not batch["action_is_pad"].any()
