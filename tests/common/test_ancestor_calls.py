"""Calls as code for the original diffusion_policy makes them: by its names and its keywords."""

from __future__ import annotations

import importlib
import json

import numcodecs
import numpy as np
import pytest
import torch
import zarr
from omegaconf import OmegaConf
from torch import nn

from diffusion_policy.checkpoint.checkpoint_file import load_checkpoint
from diffusion_policy.common import errors, window
from diffusion_policy.common.checkpoint_util import TopKCheckpointManager
from diffusion_policy.common.json_logger import JsonLogger, read_json_log
from diffusion_policy.common.normalize_util import (
    array_to_stats,
    get_identity_normalizer_from_stat,
    get_image_range_normalizer,
    get_range_normalizer_from_stat,
    robomimic_abs_action_only_dual_arm_normalizer_from_stat,
    robomimic_abs_action_only_normalizer_from_stat,
)
from diffusion_policy.common.pytorch_util import (
    dict_apply,
    dict_apply_reduce,
    dict_apply_split,
    optimizer_to,
    pad_remaining_dims,
    replace_submodules,
)
from diffusion_policy.common.replay_buffer import ReplayBuffer, get_optimal_chunks
from diffusion_policy.common.sampler import (
    SequenceSampler,
    create_indices,
    downsample_mask,
    get_val_mask,
)
from diffusion_policy.model.common.normalizer import (
    LinearNormalizer,
    SingleFieldLinearNormalizer,
)
from diffusion_policy.spec.window import Window
from diffusion_policy.util.errors import UserError
from diffusion_policy.workspace.base_workspace import BaseWorkspace


@pytest.mark.parametrize(
    "name",
    [
        "dataset.base_dataset.BaseImageDataset",
        "dataset.base_dataset.BaseLowdimDataset",
        "model.common.normalizer.LinearNormalizer",
        "model.common.normalizer.SingleFieldLinearNormalizer",
        "model.diffusion.conditional_unet1d.ConditionalUnet1D",
        "model.diffusion.ema_model.EMAModel",
        "model.diffusion.transformer_for_diffusion.TransformerForDiffusion",
        "workspace.base_workspace.BaseWorkspace",
    ],
)
def test_classes_lie_where_they_lay(name):
    module, _, found = f"diffusion_policy.{name}".rpartition(".")
    assert isinstance(getattr(importlib.import_module(module), found), type)


# ---------------------------------------------------------------------- replay buffer


def episode(length: int) -> dict[str, np.ndarray]:
    return {
        "img": np.full((length, 4, 4, 3), length, np.uint8),
        "action": np.arange(2 * length, dtype=np.float32).reshape(length, 2),
    }


@pytest.fixture
def path(tmp_path) -> str:
    """A data set of episodes of 3, 5 and 4 steps."""
    path = str(tmp_path / "replay_buffer.zarr")
    replay_buffer = ReplayBuffer.create_from_path(zarr_path=path, mode="a")
    for length in (3, 5, 4):
        replay_buffer.add_episode(
            data=episode(length),
            chunks={"img": (1, 4, 4, 3)},
            compressors={"img": "disk", "action": numcodecs.Blosc(cname="zstd")},
        )
    return path


def test_a_buffer_is_filled_and_read(path):
    replay_buffer = ReplayBuffer.create_from_path(zarr_path=path, mode="r")
    assert (replay_buffer.backend, replay_buffer.n_episodes, replay_buffer.n_steps) == (
        "zarr",
        3,
        12,
    )
    assert replay_buffer.episode_ends[:].tolist() == [3, 8, 12]
    assert replay_buffer.episode_lengths.tolist() == [3, 5, 4]
    assert replay_buffer.get_chunks()["img"] == (1, 4, 4, 3)
    assert replay_buffer.meta["episode_ends"][:].tolist() == [3, 8, 12]
    assert replay_buffer.data["action"].shape == replay_buffer["action"].shape == (12, 2)
    assert "img" in replay_buffer
    assert set(replay_buffer.keys()) == {"img", "action"}
    slices = replay_buffer.get_steps_slice(start=1, stop=8, step=3, copy=True)
    np.testing.assert_array_equal(slices["action"], replay_buffer["action"][1:8:3])
    assert replay_buffer.get_steps_slice(0, 4, 2)["img"].shape == (2, 4, 4, 3)
    np.testing.assert_array_equal(
        replay_buffer.get_episode(-1, copy=True)["img"], episode(4)["img"]
    )
    assert replay_buffer.get_episode_slice(1) == slice(3, 8)
    assert replay_buffer.get_episode_idxs().tolist() == [0] * 3 + [1] * 5 + [2] * 4


@pytest.mark.slow
def test_a_buffer_is_copied_and_saved(path, tmp_path):
    copies = [
        ReplayBuffer.copy_from_path(zarr_path=path, keys=["action"]),
        ReplayBuffer.copy_from_path(path, backend="numpy", keys=["action"]),
        ReplayBuffer.copy_from_path(
            path, store=zarr.storage.MemoryStore(), keys=["action"], chunks={}, compressors={}
        ),
        ReplayBuffer.copy_from_store(
            src_store=zarr.storage.LocalStore(path), keys=["action"], if_exists="replace"
        ),
    ]
    assert [copy.backend for copy in copies] == ["numpy", "numpy", "zarr", "numpy"]
    for number, copy in enumerate(copies):
        again = str(tmp_path / f"{number}.zarr")
        copy.save_to_path(zarr_path=again, chunks={"action": (2, 2)}, compressors="disk")
        copy.save_to_path(again, {"action": (3, 2)}, "default", "replace")
        stored = ReplayBuffer.create_from_path(again)
        np.testing.assert_array_equal(
            stored["action"], ReplayBuffer.create_from_path(path)["action"]
        )
        assert stored.get_chunks() == {"action": (3, 2)}
    memory = zarr.storage.MemoryStore()
    copies[0].save_to_store(store=memory, chunks={}, compressors={}, if_exists="replace")
    assert ReplayBuffer.create_from_group(zarr.open_group(memory)).n_steps == 12


def test_episodes_come_and_go(path):
    replay_buffer = ReplayBuffer.create_from_path(zarr_path=path, mode="a")
    replay_buffer.extend(episode(2))
    np.testing.assert_array_equal(replay_buffer.pop_episode()["action"], episode(2)["action"])
    replay_buffer.drop_episode()
    replay_buffer.update_meta({"fps": 10})
    assert replay_buffer.n_steps == 8
    replay_buffer.set_chunks({"action": (5, 2)})
    assert replay_buffer.chunk_size in (1, 5)
    codec = ReplayBuffer.resolve_compressor("disk")
    replay_buffer.set_compressors({"img": codec})
    assert replay_buffer.get_compressors()["img"][0].cname == codec.cname


@pytest.mark.parametrize("storage", [{}, {"storage": zarr.storage.MemoryStore()}])
def test_empty_buffers(storage):
    for replay_buffer in (
        ReplayBuffer.create_empty_numpy(),
        ReplayBuffer.create_empty_zarr(**storage),
    ):
        replay_buffer.add_episode(episode(3))
        assert replay_buffer.n_episodes == 1


def test_chunks_hold_whole_steps():
    assert get_optimal_chunks(shape=(1000, 96, 96, 3), dtype=np.uint8, target_chunk_bytes=1e5) == (
        4,
        96,
        96,
        3,
    )
    assert get_optimal_chunks((1000, 2), np.float32, max_chunk_length=7) == (7, 2)


# ---------------------------------------------------------------------- samplers


def test_a_dataset_samples_its_sequences(path):
    replay_buffer = ReplayBuffer.copy_from_path(path, keys=["img", "action"])
    val_mask = get_val_mask(n_episodes=replay_buffer.n_episodes, val_ratio=0.3, seed=42)
    train_mask = downsample_mask(mask=~val_mask, max_n=1, seed=42)
    assert (val_mask.sum(), train_mask.sum()) == (1, 1)
    sampler = SequenceSampler(
        replay_buffer=replay_buffer,
        sequence_length=4,
        pad_before=1,
        pad_after=2,
        keys=["img", "action"],
        key_first_k={"img": 2},
        episode_mask=train_mask,
    )
    indices = create_indices(
        episode_ends=replay_buffer.episode_ends[:],
        sequence_length=4,
        episode_mask=train_mask,
        pad_before=1,
        pad_after=2,
        debug=True,
    )
    np.testing.assert_array_equal(sampler.indices, indices)
    assert (sampler.sequence_length, sampler.keys) == (4, ["img", "action"])
    assert len(sampler) == len(indices) > 0
    buffer_start, _, sample_start, _ = sampler.indices[0]
    sample = sampler.sample_sequence(0)
    assert sample["img"].shape == (4, 4, 4, 3)
    np.testing.assert_array_equal(
        sample["action"][sample_start], replay_buffer["action"][buffer_start]
    )


# ---------------------------------------------------------------------- statistics and normalisers


def test_normalizers_from_statistics():
    values = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    values[:, 2] = 5
    stat = array_to_stats(values)
    spans = get_range_normalizer_from_stat(stat, output_max=1, output_min=-1, range_eps=1e-7)
    normalized = spans.normalize(values).numpy()
    np.testing.assert_allclose(normalized[:, 2], 0, atol=1e-6)
    np.testing.assert_allclose(normalized[:, [0, 1, 3]].max(0), 1, atol=1e-5)
    np.testing.assert_allclose(spans.unnormalize(normalized), values, atol=1e-5)
    np.testing.assert_allclose(spans.get_input_stats()["std"], stat["std"])
    np.testing.assert_array_equal(get_identity_normalizer_from_stat(stat).normalize(values), values)
    images = torch.tensor([0.0, 0.5, 1.0])
    assert get_image_range_normalizer().normalize(images).tolist() == [-1, 0, 1]
    position = robomimic_abs_action_only_normalizer_from_stat(stat).normalize(values)
    np.testing.assert_allclose(position[:, :2], normalized[:, :2], atol=1e-6)
    np.testing.assert_array_equal(position[:, 3:], values[:, 3:])
    both = np.concatenate([values, values], axis=1)
    arms = robomimic_abs_action_only_dual_arm_normalizer_from_stat(array_to_stats(both))
    np.testing.assert_array_equal(arms.normalize(both)[:, 6:], position)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("last_n_dims", [0, 1, 2])
def test_a_field_is_fitted_and_looked_into(tmp_path, last_n_dims, dtype):
    data = torch.rand(50, 9, 2)
    stored = zarr.array(data.numpy())
    for values in (data, data.numpy(), stored):
        normalizer = SingleFieldLinearNormalizer()
        normalizer.fit(data=values, last_n_dims=last_n_dims, dtype=dtype, mode="limits")
        normalized = normalizer(data)
        assert (normalized.dtype, normalized.shape) == (dtype, data.shape)
        assert (normalized.min().item(), normalized.max().item()) == pytest.approx((-1, 1))
        torch.testing.assert_close(normalizer.unnormalize(normalized).float(), data)
    size = (1, 2, 18)[last_n_dims]
    assert normalizer.params_dict["scale"].shape == (size,)
    assert normalizer.params_dict["input_stats"]["min"].shape == (size,)
    assert set(normalizer.get_output_stats()) >= {"min", "max", "mean", "std"}


def test_a_normalizer_of_several_fields():
    data = {"obs": torch.rand(100, 3, 4) * 512, "action": np.random.rand(100, 3, 2)}  # noqa: NPY002
    normalizer = LinearNormalizer()
    normalizer.fit(data=data, last_n_dims=1, mode="gaussian", output_max=1.0, output_min=-1.0)
    normalizer["image"] = SingleFieldLinearNormalizer.create_identity(dtype=torch.float32)
    normalizer["gripper"] = SingleFieldLinearNormalizer.create_manual(
        scale=np.ones(1), offset=np.zeros(1), input_stats_dict=array_to_stats(np.zeros((5, 1)))
    )
    back = normalizer.unnormalize(normalizer.normalize(data))
    torch.testing.assert_close(back["action"], torch.tensor(data["action"]).float())
    scale = normalizer["action"].params_dict["scale"]
    assert scale is normalizer.params_dict["action"]["scale"]
    assert normalizer.get_input_stats()["obs"]["max"].shape == (4,)
    again = LinearNormalizer()
    again.load_state_dict(normalizer.state_dict())
    torch.testing.assert_close(again["obs"].params_dict["offset"], normalizer["obs"]["offset"])


def test_a_normalizer_of_a_bare_array():
    normalizer = LinearNormalizer()
    normalizer.fit(torch.rand(100, 3), mode="limits", range_eps=1e-4, fit_offset=True)
    assert normalizer.get_input_stats()["min"].shape == (3,)
    assert normalizer.get_output_stats()["max"].tolist() == pytest.approx([1, 1, 1])


# ---------------------------------------------------------------------- small helpers


def test_nested_dicts_of_tensors():
    stat = {"max": torch.tensor([1.0, 2, 3]), "min": torch.tensor([4.0, 5, 6])}
    parts = dict_apply_split(stat, split_func=lambda x: {"pos": x[..., :2], "rot": x[..., 2:]})
    assert parts["rot"]["min"].tolist() == [6]
    joined = dict_apply_reduce([parts["pos"], parts["rot"]], reduce_func=torch.cat)
    assert {key: value.tolist() for key, value in joined.items()} == {
        key: value.tolist() for key, value in stat.items()
    }
    assert dict_apply({"obs": stat}, lambda x: x + 1)["obs"]["max"].tolist() == [2, 3, 4]
    assert pad_remaining_dims(torch.zeros(3), torch.zeros(3, 4, 5)).shape == (3, 1, 1)


def test_submodules_are_replaced_and_optimizers_moved():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()))
    changed = replace_submodules(
        root_module=model,
        predicate=lambda module: isinstance(module, nn.BatchNorm2d),
        func=lambda module: nn.GroupNorm(2, module.num_features),
    )
    assert changed is model
    assert isinstance(model[1][0], nn.GroupNorm)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3, 2, 2)).sum().backward()
    optimizer.step()
    state = next(iter(optimizer_to(optimizer, torch.device("meta")).state.values()))
    assert state["exp_avg"].device.type == "meta"


# ---------------------------------------------------------------------- logs and checkpoints


def test_a_log_goes_on_where_it_ended(tmp_path):
    path = str(tmp_path / "logs.json.txt")
    with JsonLogger(path) as json_logger:
        assert json_logger.get_last_log() is None
        json_logger.log({"train_loss": np.float32(0.5), "global_step": 1, "video": object()})
    with open(path, "a") as file:  # noqa: PTH123
        file.write('{"train_lo')
    json_logger = JsonLogger(path, filter_fn=lambda key, value: key != "epoch")
    json_logger.start()
    assert json_logger.get_last_log() == {"train_loss": 0.5, "global_step": 1}
    json_logger.log({"train_loss": 0.25, "epoch": 3})
    json_logger.stop()
    records = [json.loads(line) for line in (tmp_path / "logs.json.txt").read_text().splitlines()]
    assert records == [{"train_loss": 0.5, "global_step": 1}, {"train_loss": 0.25}]
    with pytest.raises(UserError, match=r"logs.json.txt is closed; call start\(\)"):
        json_logger.log({})


def test_a_log_is_read_as_a_data_frame(tmp_path):
    path = tmp_path / "logs.json.txt"
    path.write_text('{"step": 0, "loss": 2}\n{"step": 1}\n{"step": 2, "loss": 1}\n{"st')
    try:
        import pandas  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match=r"needs pandas.*read_log"):
            read_json_log(path)
    else:
        assert read_json_log(path, required_keys=("loss",))["step"].tolist() == [0, 2]


@pytest.mark.parametrize(("mode", "kept"), [("max", [1, 3]), ("min", [0, 2])])
def test_the_best_checkpoints_are_kept(tmp_path, mode, kept):
    topk_manager = TopKCheckpointManager(
        save_dir=str(tmp_path),
        monitor_key="test_mean_score",
        mode=mode,
        k=2,
        format_str="epoch={epoch:04d}-test_mean_score={test_mean_score:.3f}.ckpt",
    )
    for epoch, score in enumerate([0.2, 0.5, 0.1, 0.9]):
        path = topk_manager.get_ckpt_path({"epoch": epoch, "test_mean_score": score})
        if path is not None:
            (tmp_path / path).write_text(str(epoch))
    assert sorted(int(file.read_text()) for file in tmp_path.iterdir()) == kept
    assert set(topk_manager.path_value_map) == {str(file) for file in tmp_path.iterdir()}
    with pytest.raises(UserError, match="test_mean_score"):
        topk_manager.get_ckpt_path({"epoch": 9})


# ---------------------------------------------------------------------- workspaces


class Training(BaseWorkspace):
    """A workspace as the original's users write them: attributes are found, values are named."""

    include_keys = ("global_step", "epoch")
    exclude_keys = ("frozen",)

    def __init__(self, cfg, output_dir=None):
        super().__init__(cfg, output_dir=output_dir)
        self.model = nn.Linear(2, 1)
        self.frozen = nn.Linear(2, 1)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=cfg.lr)
        self.global_step = 0
        self.epoch = 0

    def run(self):
        self.model(torch.ones(1, 2)).sum().backward()
        self.optimizer.step()
        self.global_step += 1
        self.epoch = 7


@pytest.fixture
def trained(tmp_path) -> Training:
    workspace = Training(OmegaConf.create({"lr": 0.5}), output_dir=str(tmp_path))
    workspace.run()
    return workspace


def test_a_workspace_is_saved_and_made_again(trained):
    path = trained.save_checkpoint(tag="latest", use_thread=True)
    assert path == trained.get_checkpoint_path()
    assert path.is_file()
    restored = Training.create_from_checkpoint(str(path))
    assert (restored.global_step, restored.epoch, restored.cfg.lr) == (1, 7, 0.5)
    assert torch.equal(restored.model.weight, trained.model.weight)
    assert not torch.equal(restored.frozen.weight, trained.frozen.weight)
    assert restored.optimizer.state_dict()["state"][0]["step"] == 1


def test_parts_of_a_checkpoint_are_left_out(trained):
    fresh = Training(trained.cfg, trained.output_dir)
    initial = fresh.model.weight.clone()
    trained.save_checkpoint()
    fresh.load_checkpoint(exclude_keys=["model"], include_keys=["epoch"])
    assert torch.equal(fresh.model.weight, initial)
    assert (fresh.global_step, fresh.epoch) == (0, 7)
    payload = load_checkpoint(trained.get_checkpoint_path())
    fresh.load_payload(payload, exclude_keys=None, include_keys=None)
    assert torch.equal(fresh.model.weight, trained.model.weight)
    assert fresh.global_step == 1


def test_parts_of_a_state_are_not_saved(trained, tmp_path):
    trained.note = "by hand"
    path = trained.save_checkpoint(
        path=tmp_path / "part.ckpt", exclude_keys=("optimizer",), include_keys=("note",)
    )
    assert load_checkpoint(path)["state"].keys() == {"global_step", "epoch", "model", "note"}
    trained.note = None
    trained.load_checkpoint(path, include_keys=("note",))
    assert trained.note == "by hand"


def test_snapshots_are_refused_with_a_remedy(trained):
    with pytest.raises(UserError, match=r"pickle.*use save_checkpoint"):
        trained.save_snapshot(tag="latest")
    with pytest.raises(UserError, match=r"a\.pkl is a pickle.*use create_from_checkpoint"):
        Training.create_from_snapshot("a.pkl")


def test_names_of_the_first_versions_are_found():
    assert errors.UserError is UserError
    assert window.Window is Window
