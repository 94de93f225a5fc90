from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from diffusion_policy.util.errors import UserError
from diffusion_policy.workspace.changed_settings import Change, changed_settings
from diffusion_policy.workspace.train_workspace import TrainWorkspace
from tests.configs import compose_config, tiny_overrides
from tests.demos import make_demos
from tests.states import assert_equal_states

RECORDS = Path(__file__).parents[2] / "docs/results"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> TrainWorkspace:
    """A run whose first step is saved."""
    folder = tmp_path_factory.mktemp("run")
    overrides = tiny_overrides(make_demos(folder / "demos.zarr"), folder / "cache")
    workspace = TrainWorkspace(compose_config("train_dot_pusht", *overrides), folder)
    workspace.train_step([(workspace.order.part(0), next(iter(workspace.loader)))])
    workspace.save_checkpoint()
    return workspace


def again(workspace: TrainWorkspace, key: str, value: object) -> TrainWorkspace:
    """The same run with another value of that setting."""
    cfg = workspace.cfg.copy()
    OmegaConf.update(cfg, key, value, force_add=True)
    return TrainWorkspace(cfg, workspace.output_dir)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("optimizer.lr", 0.125, "optimizer.lr was 0.002 and is 0.125"),
        ("policy.normalization.STATE", "MEAN_STD", "normalization.STATE was MIN_MAX and is MEAN"),
        ("policy.dim", 32, "policy.dim was 16 and is 32"),
        # Data is split by it, too.
        ("training.seed", 7, "task.dataset.seed was 42 and is 7, training.seed was 42 and is 7"),
        ("dataloader.batch_size", 8, "dataloader.batch_size was 16 and is 8"),
        ("training.max_train_steps", None, "training.max_train_steps was 4 and is None"),
    ],
)
def test_other_settings_do_not_go_on_with_a_run(workspace, key, value, told):
    other = again(workspace, key, value)
    before = {name: tensor.clone() for name, tensor in other.model.state_dict().items()}
    with pytest.raises(UserError, match=r"choose another output directory") as caught:
        other.load_checkpoint()
    assert told in str(caught.value)
    assert_equal_states(before, dict(other.model.state_dict()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.num_epochs", 5),
        ("training.num_threads", None),
        ("dataloader.num_workers", 1),
        ("dataloader.timeout", 7),
        ("task.env_runner.timeout_s", 7),
        ("task.env_runner.n_test", 3),
        ("task.dataset.cache_dir", "elsewhere"),
        ("checkpoint.topk.k", 1),
        ("logging.wandb.project", "mine"),
    ],
)
def test_what_does_not_touch_learning_may_change(workspace, key, value):
    other = again(workspace, key, value)
    other.load_checkpoint()
    assert other.global_step == 1


def test_settings_that_appear_or_vanish_are_changes():
    saved = OmegaConf.create({"policy": {"a": 1, "b": {"c": [1, 2]}, "same": {}}})
    current = OmegaConf.create({"policy": {"b": {"c": [1, 3]}, "d": None, "same": {}}})
    assert changed_settings(saved, current) == [
        Change("policy.a", 1, "absent"),
        Change("policy.b.c", [1, 2], [1, 3]),
        Change("policy.d", "absent", None),
    ]


def test_a_run_from_before_the_mirror_goes_on_without_it():
    mirror = {"symmetry": {"_target_": "Mirror"}}
    saved = OmegaConf.create({"task": {"dataset": {"path": "a"}}})
    same = OmegaConf.create({"task": {"dataset": {"path": "a", "mirrored": False, **mirror}}})
    assert changed_settings(saved, same) == []
    other = OmegaConf.create({"task": {"dataset": {"path": "a", "mirrored": True, **mirror}}})
    assert changed_settings(saved, other) == [Change("task.dataset.mirrored", False, True)]


@pytest.mark.parametrize("record", ["dot_pusht_human_seed43", "dot_pusht_human_seed44"])
def test_recorded_runs_could_go_on_with_the_config_of_today(record):
    saved = OmegaConf.load(RECORDS / record / "config.yaml")
    current = compose_config(saved.name, f"training.seed={saved.training.seed}")
    OmegaConf.resolve(current)
    assert changed_settings(saved, current) == []


@pytest.mark.slow
def test_a_checkpoint_brings_its_workspace_along(workspace, tmp_path):
    restored = TrainWorkspace.create_from_checkpoint(workspace.get_checkpoint_path())
    assert restored.output_dir == workspace.output_dir
    assert restored.global_step == 1
    assert_equal_states(dict(workspace.model.state_dict()), dict(restored.model.state_dict()))
    moved = TrainWorkspace.create_from_checkpoint(
        workspace.get_checkpoint_path(), output_dir=tmp_path
    )
    assert moved.output_dir == tmp_path


@pytest.mark.parametrize("part", ["optimizer", "ema", "ema_model", "epoch", "topk"])
def test_a_checkpoint_that_lacks_a_part_is_refused(workspace, tmp_path, part):
    path = workspace.save_checkpoint(tmp_path / "part.ckpt", exclude_keys=[part])
    with pytest.raises(UserError, match=rf"part\.ckpt lacks {part}, without which the run"):
        workspace.load_checkpoint(path)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["optimizer", "model", "epoch_means", "topk"])
def test_a_part_of_another_kind_is_refused_in_one_line(workspace, tmp_path, part):
    path = workspace.save_checkpoint(
        tmp_path / "part.ckpt", state={**workspace.state_dict(), part: 5}
    )
    with pytest.raises(UserError, match=r"part\.ckpt does not fit this config") as caught:
        again(workspace, "training.num_epochs", 5).load_checkpoint(path)
    assert "\n" not in str(caught.value)
