"""Window datasets whose samples are transformed."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from diffusion_policy.dataset.batch_order import BatchIndex
from diffusion_policy.dataset.mixture import Mixture
from diffusion_policy.dataset.stores.episode_store import EpisodeInfo
from diffusion_policy.dataset.stores.memory_store import MemoryStore
from diffusion_policy.dataset.window_dataset import WindowDataset
from diffusion_policy.spec.window import Window
from diffusion_policy.transforms.action_frame import VectorFrame
from diffusion_policy.transforms.images import CenterCrop
from diffusion_policy.transforms.keys import Rename, SelectKeys
from diffusion_policy.transforms.prompt import Prompt
from diffusion_policy.util.errors import UserError
from tests.toys.toy_mixture import META as MIXED
from tests.toys.toy_mixture import UNITS, toy_store

ENDS = [4, 10]
META = {
    "obs": {
        "joints": {"shape": [2], "limits": [0, 20]},
        "wrist": {"shape": [3, 4, 4], "type": "rgb"},
        "task": {"type": "text"},
    },
    "action": {"shape": [2], "limits": [0, 20]},
}
WINDOW = Window(obs_offsets=(-1, 0), action_offsets=(-1, 0, 1, 2), future_obs_offsets=(1,))


@pytest.fixture
def store():
    rng = np.random.default_rng(0)
    joints = np.stack([np.arange(10), rng.uniform(0, 20, 10)], axis=1).astype(np.float32)
    arrays = {
        "joints": joints,
        "action": joints + rng.uniform(0, 3, (10, 2)).astype(np.float32),
        "wrist": rng.integers(0, 256, (10, 3, 4, 4), np.uint8),
        "task": ["lift"] * 4 + ["pour"] * 6,
    }
    return MemoryStore(arrays, ENDS)


def make(store, *transforms, window=WINDOW, **options):
    return WindowDataset(store, META, window, transforms=transforms, val_ratio=0, **options)


def whole_batch(dataset):
    return dataset.__getitems__(BatchIndex(np.arange(len(dataset)), seed=0))


def test_a_batch_is_what_the_transforms_make_of_the_recorded_one(store):
    dataset = make(
        store,
        Rename({"wrist": "camera"}),
        CenterCrop(2, 2),
        Prompt("Please {task}."),
        VectorFrame(now="joints"),
        SelectKeys(["camera", "prompt", "joints"]),
    )
    recorded, batch = whole_batch(make(store)), whole_batch(dataset)
    assert list(batch["obs"]) == list(dataset.spec.obs) == ["camera", "prompt", "joints"]
    assert torch.equal(batch["obs"]["camera"], recorded["obs"]["wrist"][..., 1:3, 1:3])
    assert batch["obs"]["prompt"] == ["Please lift."] * 4 + ["Please pour."] * 6
    assert torch.equal(batch["obs"]["joints"], recorded["obs"]["joints"])
    # Row 1 of 3 observations is now: one is of the future.
    now = recorded["obs"]["joints"][:, 1:2]
    torch.testing.assert_close(batch["action"], recorded["action"] - now)
    assert batch.keys() == recorded.keys()
    assert dataset.spec.action.limits is None


def test_recorded_actions_come_back_from_the_batch(store):
    dataset = make(store, VectorFrame(now="joints", target="delta"))
    recorded, batch = whole_batch(make(store)), whole_batch(dataset)
    obs = {"joints": recorded["obs"]["joints"][:, :2].numpy()}
    action = dataset.pipeline.inverse(batch["action"][:, 1:].numpy(), [obs])
    np.testing.assert_allclose(action, recorded["action"][:, 1:], atol=1e-5)


def test_transforms_that_change_no_value_leave_the_normaliser_as_it_was(store):
    modes = {"STATE": "MEAN_STD", "ACTION": "MEAN_STD"}
    plain = make(store).get_normalizer(modes).state_dict()
    found = make(store, Prompt("{task}")).get_normalizer(modes).state_dict()
    assert found.keys() == plain.keys()
    for key, value in plain.items():
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize("pad_after", [None, 0])
def test_relative_actions_are_normalised_over_chunks_without_padding(store, pad_after):
    window = Window(WINDOW.obs_offsets, WINDOW.action_offsets, pad_after)
    dataset = make(store, VectorFrame(now="joints"), window=window)
    joints, actions = (store.read(key, np.arange(10)) for key in ("joints", "action"))
    expected = [
        actions[t + offset] - joints[t]
        for start, stop in ((0, 4), (4, 10))
        for t in range(start, stop)
        for offset in WINDOW.action_offsets
        if start <= t + offset < stop
    ]
    np.testing.assert_allclose(dataset.training_values("action"), expected, atol=1e-6)
    stats = dataset.get_normalizer({})["action"].get_input_stats()
    np.testing.assert_allclose(stats["min"], np.min(expected, 0), atol=1e-6)
    np.testing.assert_allclose(stats["max"], np.max(expected, 0), atol=1e-6)


def test_a_prompt_may_be_the_task_of_the_episode(store):
    arrays = {key: store.read(key, np.arange(10)) for key in ("joints", "action", "wrist")}
    episodes = [EpisodeInfo(task="lift"), EpisodeInfo(task="pour")]
    dataset = make(MemoryStore(arrays, ENDS, episodes=episodes), Prompt("Please {task}."))
    expected = ["Please lift."] * 4 + ["Please pour."] * 6
    assert whole_batch(dataset)["obs"]["prompt"] == expected
    with pytest.raises(UserError, match=r"obs\.task is a text but episode 1 has no task"):
        make(MemoryStore(arrays, ENDS, episodes=[episodes[0], EpisodeInfo()]))


def test_samples_are_mirrored_as_recorded_and_then_transformed(store):
    def negated(key, values):
        return [text[::-1] for text in values] if key == "task" else -values

    dataset = make(store, VectorFrame(now="joints"), symmetry=negated, mirrored=True)
    batch = whole_batch(dataset)
    assert torch.equal(batch["action"][10:], -batch["action"][:10])
    assert batch["obs"]["task"][10:] == ["tfil"] * 4 + ["ruop"] * 6


def test_a_mixture_transforms_what_each_dataset_gathers():
    datasets = {name: partial(WindowDataset, toy_store(name), embodiment=name) for name in UNITS}
    mixture = Mixture(
        MIXED, Window((0,), (0, 1)), datasets=datasets, transforms=[VectorFrame(now="position")]
    )
    batch = whole_batch(mixture)
    ahead = ~batch["action_is_pad"][:, 1]
    units = torch.tensor([UNITS[mixture.embodiments[i]] for i in batch["embodiment"]])
    assert batch["action"][:, 0].abs().max() == 0
    assert torch.equal(batch["action"][ahead, 1, 0], units[ahead])
    normalizer = mixture.get_normalizer({})
    normalized = normalizer.of(batch["embodiment"])["action"].normalize(batch["action"])
    # Both robots move one of their units a step.
    torch.testing.assert_close(normalized[ahead, 1, 0], torch.ones(int(ahead.sum())))
