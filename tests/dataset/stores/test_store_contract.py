"""What every store must do. A new one joins by a function in STORES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from diffusion_policy.dataset.batch_order import BatchOrder, as_is
from diffusion_policy.dataset.edited_store import (
    Edit,
    EditedStore,
    choose_episodes,
    rename_keys,
    whole_episodes,
)
from diffusion_policy.dataset.stores.episode_store import EpisodeStore
from diffusion_policy.dataset.stores.memory_store import MemoryStore
from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.dataset.stores.pusht_store import PushTStore
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.window_dataset import WindowDataset
from diffusion_policy.env.pusht.observations import OBSERVATIONS
from diffusion_policy.spec.task_spec import Field, TaskSpec
from diffusion_policy.spec.window import Window
from diffusion_policy.util.errors import UserError
from tests.dataset.stores.hdf5_files import episode_arrays, write_isaac_lab, write_robomimic
from tests.demos import make_demos
from tests.toys.toy_store import ToyStore, toy_arrays

LENGTHS = [5, 1, 7]
ENDS = np.cumsum(LENGTHS)


@dataclass(repr=False)
class Recorded:
    """A store, and what it must give: (N, *shape) or N texts by key."""

    store: EpisodeStore
    fields: dict[str, Field]
    expected: dict[str, np.ndarray | list[str]]


def memory(folder: Path) -> Recorded:
    arrays = toy_arrays(LENGTHS)
    store = MemoryStore(arrays, ENDS, fps=20)
    return Recorded(store, dict(store.features), arrays)


def edited(folder: Path) -> Recorded:
    """Episodes of two stores, one of them split, in another order and with swapped cameras."""
    stores = [MemoryStore(toy_arrays([n]), [n], fps=20) for n in (7, 6)]
    pieces = whole_episodes(stores)
    edit = Edit(
        choose_episodes(pieces, kept=[1, 0], splits={1: [5]}),
        rename_keys(stores[0].features, swapped=[("left", "right")]),
    )
    firsts = toy_arrays([7]), toy_arrays([6])
    expected = {
        new: [*firsts[1][old], *firsts[0][old]]
        if old == "task"
        else np.concatenate([firsts[1][old], firsts[0][old]])
        for new, old in edit.keys
    }
    store = EditedStore(stores, edit)
    return Recorded(store, dict(store.features), expected)


def toy(folder: Path) -> Recorded:
    store = ToyStore(LENGTHS)
    return Recorded(store, dict(store.features), toy_arrays(LENGTHS))


def zarr(folder: Path, zipped: bool = False) -> Recorded:
    arrays = toy_arrays(LENGTHS)
    rng = np.random.default_rng(1)
    arrays["depth"] = (rng.integers(0, 4000, (13, 1, 4, 5)) / np.float32(1000)).astype(np.float32)
    stored = {
        **arrays,
        "left": arrays["left"].transpose(0, 2, 3, 1).astype(np.float32),  # as early data sets do
        "depth": np.round(arrays["depth"][:, 0] * 1000).astype(np.uint16),
    }
    buffer = ReplayBuffer.create_from_path(folder / "store.zarr", mode="a")
    for start, end in zip([0, *ENDS], ENDS, strict=False):
        buffer.add_episode({key: values[start:end] for key, values in stored.items()})
    if zipped:
        buffer.save_to_path(folder / "store.zarr.zip")
    store = open_store(folder / ("store.zarr.zip" if zipped else "store.zarr"), folder / "cache")
    fields = {**store.features, "left": Field((3, 4, 5), "rgb", "VISUAL")}
    return Recorded(store, fields, arrays)


def zarr_zip(folder: Path) -> Recorded:
    return zarr(folder, zipped=True)


def pusht(folder: Path) -> Recorded:
    recorded = open_store(make_demos(folder / "demos.zarr", 3, length=4), folder / "cache")
    states, actions = (recorded.read(key, np.arange(15)) for key in ("state", "action"))
    expected = {
        key: np.stack([compute(state) for state in states])
        for key, (_, compute) in OBSERVATIONS.items()
    }
    store = PushTStore(recorded, folder / "cache")
    return Recorded(store, dict(store.features), {**expected, "action": actions})


def robomimic(folder: Path, **how: object) -> Recorded:
    store = open_store(write_robomimic(folder / "demos.hdf5", LENGTHS, **how), folder / "cache")
    episodes = [episode_arrays(length, i) for i, length in enumerate(LENGTHS)]
    recorded = {key: np.concatenate([one[key] for one in episodes]) for key in episodes[0]}
    expected = {
        "agentview_image": recorded["obs/agentview_image"].transpose(0, 3, 1, 2),
        "robot0_eef_pos": recorded["obs/robot0_eef_pos"].astype(np.float32),
        "next.reward": recorded["rewards"].astype(np.float32)[:, None],
        "action": recorded["actions"].astype(np.float32),
    }
    return Recorded(store, {key: store.features[key] for key in expected}, expected)


def robomimic_packed(folder: Path) -> Recorded:
    return robomimic(folder, compression="gzip")


def isaac_lab(folder: Path) -> Recorded:
    store = open_store(write_isaac_lab(folder / "demos.hdf5", LENGTHS), folder / "cache")
    episodes = [episode_arrays(length, i) for i, length in enumerate(LENGTHS)]
    recorded = {key: np.concatenate([one[key] for one in episodes]) for key in episodes[0]}
    expected = {
        "front": recorded["obs/agentview_image"].transpose(0, 3, 1, 2),
        "joint_pos": recorded["obs/robot0_eef_pos"].astype(np.float32),
        "action": recorded["actions"].astype(np.float32),
    }
    return Recorded(store, {key: store.features[key] for key in expected}, expected)


def lerobot_arrays() -> dict[str, np.ndarray | list[str]]:
    toy = toy_arrays(LENGTHS)
    left, right = (small_dataset.small_images(13, seed) for seed in (0, 1))
    return {
        **{"observation.images.left": left, "observation.images.right": right},
        **{"observation.state": toy["position"], "action": toy["action"]},
        "task": [*toy["task"][:12], "lift the lid"],  # another one at the end of an episode
    }


def lerobot_videos(folder: Path, cache: str | None = "none") -> Recorded:
    arrays = lerobot_arrays()
    root = small_dataset.write_v21(folder / "v21", arrays, LENGTHS)
    for camera in ("left", "right"):
        videos = sorted(root.glob(f"videos/*/observation.images.{camera}/*.mp4"))
        frames = [small_dataset.decoded(video) for video in videos]
        arrays[f"observation.images.{camera}"] = np.concatenate(frames)
    store = open_store(root, folder / "cache", cache=cache)
    return Recorded(store, dict(store.features), arrays)


def lerobot_videos_cached(folder: Path) -> Recorded:
    return lerobot_videos(folder, cache="disk")


def lerobot_pictures(folder: Path) -> Recorded:
    arrays = lerobot_arrays()
    root = small_dataset.write_v30(folder / "v30", arrays, LENGTHS)
    store = open_store(root, folder / "cache")
    return Recorded(store, dict(store.features), arrays)


STORES: list[Callable[[Path], Recorded]] = [
    *(memory, edited, toy, zarr, zarr_zip, pusht),
    *(robomimic, robomimic_packed, isaac_lab),
]
if find_spec("pyarrow"):
    from tests.dataset.stores.lerobot import small_dataset

    STORES += [lerobot_videos, lerobot_videos_cached, lerobot_pictures]


@pytest.fixture(scope="module", params=STORES, ids=lambda make: make.__name__)
def recorded(request, tmp_path_factory) -> Recorded:
    made = request.param(tmp_path_factory.mktemp(request.param.__name__))
    made.store.prepare(made.fields)
    return made


def test_features_tell_what_is_read(recorded):
    assert recorded.store.features.keys() >= recorded.expected.keys()
    for key, expected in recorded.expected.items():
        field = recorded.fields[key]
        assert field.shape == (() if field.type == "text" else expected.shape[1:]), key
    types = {"uint8": "rgb", "float32": ("low_dim", "depth")}
    for key, values in recorded.expected.items():
        if isinstance(values, np.ndarray):
            assert recorded.fields[key].type in types[str(values.dtype)]


def test_episodes_lie_end_to_end(recorded):
    store = recorded.store
    assert store.episode_ends.dtype == np.int64
    assert (np.diff(store.episode_ends, prepend=0) > 0).all()
    assert store.n_steps == store.episode_ends[-1]
    assert store.fps is None or store.fps > 0


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_steps_are_read_in_any_order(recorded, data):
    n = recorded.store.n_steps
    steps = data.draw(st.lists(st.integers(0, n - 1), min_size=4, max_size=4))
    for key, expected in recorded.expected.items():
        if recorded.fields[key].type == "text":
            assert recorded.store.read(key, np.array(steps)) == [expected[i] for i in steps]
            continue
        for shape in ((4,), (2, 2), (4, 1)):
            wanted = np.array(steps).reshape(shape)
            found = recorded.store.read(key, wanted)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected[wanted])


def test_what_was_read_may_be_changed(recorded):
    for key, field in recorded.fields.items():
        if field.type != "text":
            before = recorded.store.read(key, np.arange(2))
            recorded.store.read(key, np.arange(2))[...] = 1
            np.testing.assert_array_equal(recorded.store.read(key, np.arange(2)), before)


def test_what_does_not_fit_is_refused(recorded):
    with pytest.raises(UserError, match="nothing"):
        recorded.store.prepare({"nothing": Field((2,))})
    for key, field in recorded.fields.items():
        if field.type != "text":
            with pytest.raises(UserError, match=rf"shape_meta\..*{key} has shape \["):
                recorded.store.prepare({key: Field((*field.shape, 7), field.type)})


def test_every_episode_is_described(recorded):
    for i in range(len(recorded.store.episode_ends)):
        info = recorded.store.episode(i)
        assert info.task is None or isinstance(info.task, str)
        assert info.initial_state is None or info.initial_state.ndim == 1
        assert info.source


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*too short to give")
@settings(max_examples=10, deadline=None)
@given(
    offsets=st.lists(st.integers(-3, 0), min_size=1, max_size=3, unique=True),
    ahead=st.integers(0, 4),
    pad_after=st.one_of(st.none(), st.integers(0, 3)),
)
def test_windows_equal_plain_slices(recorded, offsets, ahead, pad_after):
    window = Window(tuple(sorted({*offsets, 0})), tuple(range(ahead + 1)), pad_after)
    obs = {key: field for key, field in recorded.fields.items() if key != "action"}
    spec = TaskSpec(obs, recorded.fields["action"])
    dataset = WindowDataset(recorded.store, spec, window, val_ratio=0)
    found = [dataset[i] for i in range(len(dataset))]
    expected = list(naive_windows(recorded, window))
    assert len(found) == len(expected)
    for sample, wanted in zip(found, expected, strict=True):
        assert sample["embodiment"] == 0
        for key, values in {**sample["obs"], "action": sample["action"]}.items():
            if isinstance(values, str):
                assert values == wanted[key]
            else:
                np.testing.assert_array_equal(values, wanted[key])
        np.testing.assert_array_equal(sample["action_is_pad"], wanted["action_is_pad"])


def naive_windows(recorded, window):
    start = 0
    for end in recorded.store.episode_ends.tolist():
        beyond = 0
        if window.pad_after is not None:
            beyond = max(0, window.action_offsets[-1] - window.pad_after)
        for t in range(start, end - beyond):
            wanted = {}
            for key, values in recorded.expected.items():
                offsets = window.action_offsets if key == "action" else window.obs_offsets
                steps = [min(max(t + offset, start), end - 1) for offset in offsets]
                is_text = isinstance(values, list)
                wanted[key] = values[t] if is_text else np.stack([values[s] for s in steps])
            wanted["action_is_pad"] = [t + o >= end or t + o < start for o in window.action_offsets]
            yield wanted
        start = end


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_pass_through_workers(recorded, num_workers):
    spec = TaskSpec(
        {k: f for k, f in recorded.fields.items() if k != "action"}, recorded.fields["action"]
    )
    dataset = WindowDataset(recorded.store, spec, Window((0,), (0,)), val_ratio=0)
    order = BatchOrder(len(dataset), 4, seed=0, shuffle=False)
    loader = DataLoader(dataset, batch_sampler=order, num_workers=num_workers, collate_fn=as_is)
    batches = list(loader)
    for key, expected in recorded.expected.items():
        parts = [batch["action"] if key == "action" else batch["obs"][key] for batch in batches]
        if isinstance(expected, list):
            assert list(chain(*parts)) == expected
        else:
            np.testing.assert_array_equal(np.concatenate(parts)[:, 0], expected)
