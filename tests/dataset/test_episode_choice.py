"""Which steps and episodes become samples: drop_first, drop_last, exclude_episodes, filter."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from diffusion_policy.dataset.stores.memory_store import MemoryStore
from diffusion_policy.dataset.stores.pusht_store import PushTStore
from diffusion_policy.dataset.window_dataset import WindowDataset
from diffusion_policy.spec.window import Window
from diffusion_policy.util.errors import UserError
from diffusion_policy.workspace.changed_settings import changed_settings
from tests.configs import compose_config
from tests.dataset.stores.hdf5_files import write_robomimic

META = {"obs": {"state": {"shape": [1]}}, "action": {"shape": [1]}}
LENGTHS = [5, 3, 7, 4]


def store(lengths=tuple(LENGTHS)) -> MemoryStore:
    """Episodes whose state and action are the number of the step."""
    steps = np.arange(sum(lengths), dtype=np.float32)[:, None]
    return MemoryStore({"state": steps, "action": steps}, np.cumsum(lengths))


def current_steps(dataset: WindowDataset) -> list[int]:
    return [int(dataset[i]["obs"]["state"][-1, 0]) for i in range(len(dataset))]


@pytest.mark.filterwarnings("ignore:.*too short to give")
@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    first=st.integers(0, 4),
    last=st.integers(0, 4),
    pad_after=st.one_of(st.none(), st.integers(0, 2)),
    data=st.data(),
)
def test_samples_are_the_kept_steps_of_kept_episodes(lengths, first, last, pad_after, data):
    numbers = st.lists(st.integers(0, len(lengths) - 1), unique=True, max_size=len(lengths) - 1)
    excluded = data.draw(numbers)
    dataset = WindowDataset(
        store(lengths),
        META,
        Window((-1, 0), (0, 1, 2), pad_after),
        val_ratio=0,
        drop_first=first,
        drop_last=last,
        exclude_episodes=excluded,
    )
    at_end = last if pad_after is None else max(last, 2 - pad_after)
    episodes = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
    kept = [steps for i, steps in enumerate(episodes) if i not in excluded]
    expected = [steps[first : max(0, len(steps) - at_end)] for steps in kept]
    assert current_steps(dataset) == np.concatenate(expected).tolist()
    assert dataset.n_episodes == sum(len(steps) > 0 for steps in expected)


def test_windows_still_read_dropped_steps():
    dataset = WindowDataset(
        store(), META, Window((-1, 0), (0, 1)), val_ratio=0, drop_first=1, drop_last=1
    )
    assert dataset[0]["obs"]["state"][:, 0].tolist() == [0, 1]
    assert dataset[2]["action"][:, 0].tolist() == [3, 4]
    assert not dataset[2]["action_is_pad"].any()


def test_excluded_episodes_are_neither_trained_on_nor_validated_nor_fitted():
    dataset = WindowDataset(store(), META, Window((0,), (0,)), val_ratio=0.3, exclude_episodes=[2])
    validation = dataset.get_validation_dataset()
    assert dataset.n_episodes == 2
    assert validation.n_episodes == 1
    steps = current_steps(dataset) + current_steps(validation)
    assert sorted(steps) == [*range(8), *range(15, 19)]
    values = dataset.training_values("action")[:, 0]
    assert sorted(values.tolist()) == sorted(current_steps(dataset))


def test_without_exclusion_the_split_is_as_ever():
    """Seed 3 of 4 episodes, as computed before episodes could be left out."""
    dataset = WindowDataset(store(), META, Window((0,), (0,)), val_ratio=0.25, seed=3)
    expected = np.zeros(4, bool)
    expected[np.random.default_rng(3).choice(4, 1, replace=False)] = True
    np.testing.assert_array_equal(dataset.val_mask, expected)


def test_an_episode_with_nan_can_be_left_out():
    spoilt = store()
    spoilt._arrays["action"][9] = np.nan
    with pytest.raises(UserError, match="action is not finite in episode 2"):
        WindowDataset(spoilt, META, Window((0,), (0,)))
    assert WindowDataset(spoilt, META, Window((0,), (0,)), exclude_episodes=[2]).n_episodes


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("drop_first", -1, "is -1; use a number of steps"),
        ("drop_last", 0.5, "is 0.5; use a number of steps"),
        ("drop_last", True, "is True; use a number of steps"),
        ("exclude_episodes", [4], "has 4; use numbers from 0 to 3"),
        ("exclude_episodes", [-1], "has -1; use numbers from 0 to 3"),
        ("exclude_episodes", ["demo_1"], "has 'demo_1'; use numbers from 0 to 3"),
        ("exclude_episodes", [0, 1, 2, 3], "leaves none of 4 episodes"),
        ("filter", "train", "is 'train', but these episodes are in no lists"),
    ],
)
def test_impossible_choices_are_refused(name, value, remedy):
    with pytest.raises(UserError, match=rf"task\.dataset\.{name} {remedy}"):
        WindowDataset(store(), META, Window((0,), (0,)), **{name: value})


def test_a_filter_reaches_the_store(tmp_path):
    meta = {"obs": {"robot0_eef_pos": {"shape": [3]}}, "action": {"shape": [7]}}
    path = write_robomimic(tmp_path / "demos.hdf5")
    dataset = WindowDataset(path, meta, Window((0,), (0,)), filter="odd", val_ratio=0)
    assert len(dataset) == 1
    opened = partial(PushTStore)
    with pytest.raises(UserError, match=r"filter is 'odd', but these episodes are in no lists"):
        WindowDataset(path, meta, Window((0,), (0,)), store=opened, filter="odd")


def test_the_command_line_takes_a_filter_that_begins_with_a_digit():
    cfg = compose_config("train_dot_pusht", "+task.dataset.filter=20_percent")
    assert cfg.task.dataset.filter == "20_percent"


@pytest.mark.parametrize(
    ("name", "same", "other"),
    [
        ("drop_first", 0, 1),
        ("drop_last", 0, 1),
        ("exclude_episodes", None, [1]),
        ("filter", None, "train"),
    ],
)
def test_a_resume_compares_the_choice(name, same, other):
    saved = OmegaConf.create({"task": {"dataset": {"path": "x"}}})
    now = OmegaConf.create({"task": {"dataset": {"path": "x", name: same}}})
    changed = OmegaConf.create({"task": {"dataset": {"path": "x", name: other}}})
    assert changed_settings(saved, now) == []
    assert [change.key for change in changed_settings(saved, changed)] == [f"task.dataset.{name}"]
