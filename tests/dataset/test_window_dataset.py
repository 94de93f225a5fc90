from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from diffusion_policy.dataset.batch_order import BatchIndex, BatchOrder, as_is
from diffusion_policy.dataset.sampler import create_indices
from diffusion_policy.dataset.stores.memory_store import MemoryStore
from diffusion_policy.dataset.stores.pusht_store import PushTStore
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.stores.zarr_store import ZarrStore
from diffusion_policy.dataset.window_dataset import WindowDataset
from diffusion_policy.env.pusht.observations import OBSERVATIONS
from diffusion_policy.model.vision.resnet import IMAGENET_MEAN, IMAGENET_STD
from diffusion_policy.spec.task_spec import Field
from diffusion_policy.spec.window import Window
from diffusion_policy.util.errors import UserError
from tests.demos import make_demos

META = {"obs": {"state": {"shape": [2]}}, "action": {"shape": [1]}}
WINDOW = Window(obs_offsets=(-1, 0), action_offsets=(-1, 0, 1, 2))


def write(path: Path, lengths: list[int], **arrays) -> Path:
    """Make episodes whose action is the step number in the store."""
    buffer = ReplayBuffer.create_from_path(path, mode="a")
    start = 0
    for length in lengths:
        steps = np.arange(start, start + length, dtype=np.float32)
        episode = {"action": steps[:, None], "state": np.stack([steps, -steps], axis=1)}
        buffer.add_episode({**episode, **{k: v[start : start + length] for k, v in arrays.items()}})
        start += length
    return path


@pytest.fixture
def store(tmp_path) -> Path:
    return write(tmp_path / "store.zarr", [5, 3, 7, 4])


def test_a_sample_is_the_window_with_repeated_edges(store):
    dataset = WindowDataset(store, META, WINDOW, val_ratio=0)
    assert len(dataset) == 19
    first = dataset[0]
    assert first["obs"]["state"][:, 0].tolist() == [0, 0]
    assert first["action"][:, 0].tolist() == [0, 0, 1, 2]
    assert first["action_is_pad"].tolist() == [True, False, False, False]
    last = dataset[18]
    assert last["obs"]["state"][:, 0].tolist() == [17, 18]
    assert last["action"][:, 0].tolist() == [17, 18, 18, 18]
    assert last["action_is_pad"].tolist() == [False, False, True, True]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*too short to give")
@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    n_obs=st.integers(1, 3),
    n_action=st.integers(1, 4),
    spare=st.integers(0, 4),
)
def test_samples_are_those_of_create_indices(tmp_path_factory, lengths, n_obs, n_action, spare):
    """Windows indexed by their current step equal classic windows indexed by their first."""
    horizon = n_obs - 1 + n_action + spare
    store = write(tmp_path_factory.mktemp("store") / "store.zarr", lengths)
    window = Window(
        obs_offsets=tuple(range(1 - n_obs, 1)),
        action_offsets=tuple(range(1 - n_obs, 1 - n_obs + horizon)),
        pad_after=n_action - 1,
    )
    dataset = WindowDataset(store, META, window, val_ratio=0)
    ends = np.cumsum(lengths)
    rows = create_indices(ends, horizon, np.ones(len(ends), bool), n_obs - 1, n_action - 1)
    expected = []
    for buffer_start, buffer_end, sample_start, sample_end in rows:
        steps = np.arange(buffer_start, buffer_end)
        expected.append(
            np.concatenate(
                [
                    np.repeat(steps[0], sample_start),
                    steps,
                    np.repeat(steps[-1], horizon - sample_end),
                ]
            ).tolist()
        )
    found = [dataset[i]["action"][:, 0].int().tolist() for i in range(len(dataset))]
    assert found == expected


def test_episodes_are_split_and_capped(store):
    dataset = WindowDataset(store, META, WINDOW, val_ratio=0.25, max_train_episodes=2, seed=1)
    validation = dataset.get_validation_dataset()
    assert dataset.n_episodes == 2
    assert validation.n_episodes == 1
    steps = [{int(d[i]["action"][1, 0]) for i in range(len(d))} for d in (dataset, validation)]
    assert not steps[0] & steps[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [("val_ratio", -0.1), ("val_ratio", 1.0), ("val_ratio", np.nan), ("max_train_episodes", 0)],
)
def test_impossible_splits_are_refused(store, name, value):
    with pytest.raises(UserError, match=rf"task\.dataset\.{name} is {value}; use"):
        WindowDataset(store, META, WINDOW, **{name: value})


def test_normaliser_sees_training_episodes_alone(tmp_path):
    store = write(tmp_path / "store.zarr", [5, 3, 7, 4])
    dataset = WindowDataset(store, META, WINDOW, val_ratio=0.25, seed=1)
    stats = dataset.get_normalizer({"STATE": "MEAN_STD"})["action"].get_input_stats()
    steps = [int(dataset[i]["action"][1, 0]) for i in range(len(dataset))]
    assert stats["min"].item() == min(steps)
    assert stats["max"].item() == max(steps)
    assert stats["mean"].item() == pytest.approx(np.mean(steps), rel=1e-5)


def test_episodes_too_short_for_the_window_are_told(tmp_path):
    store = write(tmp_path / "store.zarr", [5, 3, 7, 4])
    window = Window(obs_offsets=(0,), action_offsets=(0, 4), pad_after=0)
    with pytest.warns(UserWarning, match=r"2 of 4 training episodes are too short .* than 4 steps"):
        dataset = WindowDataset(store, META, window, val_ratio=0)
    assert dataset.n_episodes == 2
    assert len(dataset) == (5 - 4) + (7 - 4)


def test_data_are_known_by_their_content_wherever_they_lie(tmp_path):
    store = write(tmp_path / "store.zarr", [5, 3, 7, 4])
    moved = shutil.copytree(store, tmp_path / "elsewhere.zarr")
    packed = tmp_path / "packed.zarr.zip"
    ReplayBuffer.create_from_path(store).save_to_path(packed, chunks={"action": (2, 1)})
    known = {WindowDataset(path, META, WINDOW).fingerprint for path in (store, moved, packed)}
    assert len(known) == 1
    assert "4 episodes of 19 steps" in known.pop()


def test_other_episodes_are_other_data(tmp_path):
    def fingerprint() -> str:
        return WindowDataset(path, META, WINDOW).fingerprint

    path = write(tmp_path / "store.zarr", [5, 3, 7, 4])
    buffer = ReplayBuffer.create_from_path(path, mode="r+")
    known = [fingerprint()]
    buffer.edit(6, {"state": np.zeros((1, 2), np.float32)})
    known.append(fingerprint())
    buffer.drop_episode()
    known.append(fingerprint())
    write(tmp_path / "split.zarr", [4, 4, 7])
    path = tmp_path / "split.zarr"
    known.append(fingerprint())
    assert len(set(known)) == 4


def test_observations_that_are_computed_do_not_tell_data_apart(tmp_path):
    demos = make_demos(tmp_path / "demos.zarr", n_episodes=2, length=4)
    known = {
        WindowDataset(PushTStore(demos), pusht_meta(key), WINDOW).fingerprint
        for key in ("keypoint", "agent_pos")
    }
    assert len(known) == 1


def test_depth_that_is_not_finite_is_told_of_any_store():
    depth = np.ones((600, 1, 2, 2), np.float32)
    depth[513, 0, 1, 1] = np.nan
    meta = {"obs": {"depth": {"shape": [1, 2, 2], "type": "depth"}}, "action": {"shape": [1]}}
    fields = {"depth": Field((1, 2, 2), "depth", "DEPTH")}
    store = MemoryStore({"depth": depth, "action": np.zeros((600, 1))}, [300, 600], fields)
    with pytest.raises(UserError, match=r"depth is not finite in episode 1 at step 213 \(row 513"):
        WindowDataset(store, meta, WINDOW)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("MIN_MAX", -1 + 2 * 64 / 512), ("IDENTITY", 64.0)],
)
def test_modes_and_limits(store, mode, expected):
    meta = {"obs": {"state": {"shape": [2], "limits": [0, 512]}}, "action": {"shape": [1]}}
    normalizer = WindowDataset(store, meta, WINDOW).get_normalizer({"STATE": mode})
    value = normalizer["state"].normalize(torch.tensor([64.0, 64.0]))
    torch.testing.assert_close(value, torch.full((2,), expected))


def test_batch_read_equals_single_samples(store):
    dataset = WindowDataset(store, META, WINDOW, val_ratio=0)
    batch = dataset.__getitems__(BatchIndex(np.array([3, 11, 0]), seed=0))
    for row, i in enumerate([3, 11, 0]):
        sample = dataset[i]
        assert torch.equal(batch["obs"]["state"][row], sample["obs"]["state"])
        assert torch.equal(batch["action"][row], sample["action"])
    stock = next(iter(DataLoader(dataset, batch_size=4)))
    assert stock["obs"]["state"].shape == (4, 2, 2)


def test_jitter_moves_the_oldest_step_of_a_whole_batch(store):
    window = Window(obs_offsets=(-3, 0), action_offsets=(-3, 0, 1), jitter=2)
    dataset = WindowDataset(store, META, window, val_ratio=0)
    samples = np.array([11, 12])  # steps 3 and 4 of the episode of 7
    ages = set()
    for seed in range(40):
        batch = dataset.__getitems__(BatchIndex(samples, seed))
        age = batch["obs"]["state"][:, 1, 0] - batch["obs"]["state"][:, 0, 0]
        assert torch.equal(
            batch["obs"]["state"][:, 0, 0][age < 4], batch["action"][:, 0, 0][age < 4]
        )
        ages.add(int(age[1]))
    assert ages == {1, 2, 3, 4}  # 5 steps back is clamped to the first
    again = dataset.__getitems__(BatchIndex(samples, 7))
    assert torch.equal(again["action"], dataset.__getitems__(BatchIndex(samples, 7))["action"])
    fixed = dataset.get_validation_dataset()
    assert fixed.window.jitter == 0


@given(st.integers(1, 60), st.integers(1, 17), st.integers(0, 3), st.data())
def test_order_covers_every_sample_once_and_resumes(n, batch_size, epoch, data):
    order = BatchOrder(n, batch_size, seed=5)
    order.seek(epoch)
    whole = list(order)
    assert sorted(np.concatenate([b.samples for b in whole])) == list(range(n))
    start = data.draw(st.integers(0, len(whole)))
    order.seek(epoch, start)
    rest = list(order)
    assert len(rest) == len(order) == len(whole) - start
    for a, b in zip(rest, whole[start:], strict=True):
        assert np.array_equal(a.samples, b.samples)
        assert a.seed == b.seed


@given(st.integers(1, 60), st.integers(1, 17), st.integers(1, 5))
def test_processes_divide_every_batch(n, batch_size, n_processes):
    whole = BatchOrder(n, batch_size, seed=5)
    orders = [
        BatchOrder(n, batch_size, 5, rank=r, n_processes=n_processes) for r in range(n_processes)
    ]
    for i, (batch, *parts) in enumerate(zip(whole, *orders, strict=True)):
        described = [order.part(i) for order in orders]
        working = [(p, d) for p, d in zip(parts, described, strict=True) if d.share > 0]
        assert np.array_equal(np.concatenate([p.samples for p, _ in working]), batch.samples)
        for part, description in zip(parts, described, strict=True):
            assert part.seed == description.seed == batch.seed
            assert len(part.samples) == description.stop - description.start >= 1
        for _, description in working:
            assert description.share == (description.stop - description.start) / description.total
        assert sum(d.share for d in described) == pytest.approx(1)
        assert len({d.own_seed for d in described}) == n_processes


def test_order_does_not_depend_on_loader_processes(store):
    dataset = WindowDataset(store, META, Window((-3, 0), (-3, 0, 1), jitter=2), val_ratio=0)
    batches = []
    for num_workers in (0, 2):
        loader = DataLoader(
            dataset,
            batch_sampler=BatchOrder(len(dataset), 4, seed=3),
            num_workers=num_workers,
            collate_fn=as_is,
        )
        batches.append([batch["action"] for batch in loader])
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


# ---------------------------------------------------------------------- PushT


def pusht_meta(*keys: str) -> dict:
    obs = {}
    for key in keys:
        space = OBSERVATIONS[key].space
        obs[key] = {"shape": list(space.shape), "type": "rgb" if key == "image" else "low_dim"}
    return {"obs": obs, "action": {"shape": [2]}}


def test_pusht_observations_come_from_the_states(tmp_path):
    demos = make_demos(tmp_path / "demos.zarr", n_episodes=2, length=6)
    states = ReplayBuffer.create_from_path(demos)["state"][:]
    keys = ["agent_pos", "keypoint", "environment_state", "block_pos", "obs", "image"]
    store = PushTStore(demos, tmp_path / "cache")
    dataset = WindowDataset(store, pusht_meta(*keys), Window((0,), (0,)), val_ratio=0)
    sample = dataset[3]["obs"]
    for key in keys:
        np.testing.assert_array_equal(sample[key][0], OBSERVATIONS[key].compute(states[3]))
    assert sample["image"].dtype == torch.uint8
    assert len(list((tmp_path / "cache").glob("image-*.npy"))) == 1


def test_images_are_drawn_once_for_each_content(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    for name, length in (("a", 5), ("b", 6)):
        demos = make_demos(tmp_path / f"{name}.zarr", n_episodes=2, length=length)
        for _ in range(2):
            WindowDataset(PushTStore(demos, cache), pusht_meta("image"), Window((0,), (0,)))
    assert len(list(cache.iterdir())) == 2


def test_stored_images_win_and_are_converted(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (19, 96, 96, 3)).astype(np.float32)
    store = write(tmp_path / "store.zarr", [5, 3, 7, 4], img=images)
    meta = {"obs": {"image": {"shape": [3, 96, 96], "type": "rgb"}}, "action": {"shape": [1]}}
    recorded = PushTStore(store, tmp_path / "cache")
    dataset = WindowDataset(recorded, meta, Window((0,), (0,)), val_ratio=0)
    expected = images[7].transpose(2, 0, 1).astype(np.uint8)
    np.testing.assert_array_equal(dataset[7]["obs"]["image"][0], expected)
    normalizer = dataset.get_normalizer({"VISUAL": "MEAN_STD"})["image"]
    torch.testing.assert_close(
        normalizer.normalize(np.full((3, 2, 2), 255, np.uint8))[:, 0, 0],
        (1 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD),
    )
    unit = dataset.get_normalizer({"VISUAL": "MIN_MAX"})["image"]
    assert unit.normalize(np.full((3, 1, 1), 255, np.uint8)).max() == 1


def read_images(path, name: str, cache: Path) -> np.ndarray:
    store = ZarrStore(path, cache)
    store.prepare({name: Field((3, 4, 4), "rgb")})
    return store.read(name, np.arange(store.n_steps))


def test_two_arrays_of_a_store_are_converted_apart(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 19, 4, 4, 3)).astype(np.float32)
    store = write(tmp_path / "store.zarr", [5, 3, 7, 4], img=images[0], image=images[1])
    for name, expected in zip(("img", "image"), images, strict=True):
        found = read_images(store, name, tmp_path / "cache")
        np.testing.assert_array_equal(found, expected.transpose(0, 3, 1, 2))


def test_images_stored_channels_first_are_mapped_as_they_are(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (19, 3, 4, 4), dtype=np.uint8)
    store = write(tmp_path / "store.zarr", [5, 3, 7, 4], img=images)
    np.testing.assert_array_equal(read_images(store, "img", tmp_path), images)


def test_images_changed_behind_an_address_are_converted_anew(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 19, 4, 4, 3)).astype(np.float32)
    url = f"file://{write(tmp_path / 'store.zarr', [5, 3, 7, 4], img=images[0])}"
    for expected in (images[0], images[0], images[1]):
        ReplayBuffer.create_from_path(tmp_path / "store.zarr", mode="r+").edit(0, {"img": expected})
        found = read_images(url, "img", tmp_path / "cache")
        np.testing.assert_array_equal(found, expected.transpose(0, 3, 1, 2))
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (pusht_meta("image"), "has no 'state', only action"),
        ({"obs": {"depth": {"shape": [1]}}, "action": {"shape": [1]}}, "no observation 'depth'"),
        ({"obs": {}, "action": {"shape": [2]}}, r"shape_meta\.action has shape \[2\]"),
    ],
)
def test_meta_that_does_not_fit_is_refused(tmp_path, meta, message):
    buffer = ReplayBuffer.create_from_path(tmp_path / "store.zarr", mode="a")
    buffer.add_episode({"action": np.zeros((4, 2 if "image" in meta["obs"] else 1), np.float32)})
    store = PushTStore(tmp_path / "store.zarr", tmp_path / "cache")
    with pytest.raises(UserError, match=message):
        WindowDataset(store, meta, Window((0,), (0,)))


def test_images_in_zero_to_one_are_refused(tmp_path):
    images = np.random.default_rng(0).random((19, 96, 96, 3)).astype(np.float32)
    store = write(tmp_path / "store.zarr", [5, 3, 7, 4], img=images)
    meta = {"obs": {"image": {"shape": [3, 96, 96], "type": "rgb"}}, "action": {"shape": [1]}}
    with pytest.raises(UserError, match=r"not whole numbers in 0\.\.255"):
        WindowDataset(PushTStore(store, tmp_path / "cache"), meta, WINDOW)
    assert not list((tmp_path / "cache").glob("*"))


def test_a_state_that_is_not_finite_is_not_drawn(tmp_path):
    state = np.full((6, 5), 256, np.float32)
    state[4, 4] = np.nan
    buffer = ReplayBuffer.create_from_path(tmp_path / "store.zarr", mode="a")
    buffer.add_episode({"action": np.zeros((6, 2), np.float32), "state": state})
    store = PushTStore(tmp_path / "store.zarr", tmp_path / "cache")
    with pytest.raises(UserError, match=r"data/state is not finite in episode 0 at step 4"):
        WindowDataset(store, pusht_meta("image"), WINDOW)
    assert not (tmp_path / "cache").exists()


def test_nan_is_named(tmp_path):
    buffer = ReplayBuffer.create_from_path(tmp_path / "store.zarr", mode="a")
    state = np.zeros((6, 2), np.float32)
    state[4, 1] = np.nan
    buffer.add_episode({"action": np.zeros((6, 1), np.float32), "state": state})
    with pytest.raises(UserError, match=r"state is not finite in episode 0 at step 4"):
        WindowDataset(tmp_path / "store.zarr", META, WINDOW)


def test_with_a_symmetry_every_training_sample_exists_twice(store):
    def negated(key: str, values: np.ndarray) -> np.ndarray:
        assert key in ("state", "action")
        return -values

    plain = WindowDataset(store, META, WINDOW, val_ratio=0.25, seed=1)
    both = WindowDataset(
        store, META, WINDOW, val_ratio=0.25, seed=1, symmetry=negated, mirrored=True
    )
    n = len(plain)
    unused = WindowDataset(store, META, WINDOW, val_ratio=0.25, seed=1, symmetry=negated)
    assert len(unused) == n
    assert len(both) == 2 * n
    order = np.random.default_rng(0).permutation(2 * n)
    batch = both.__getitems__(BatchIndex(order, 0))
    recorded = plain.__getitems__(BatchIndex(order % n, 0))
    sign = torch.tensor(np.where(order < n, 1.0, -1.0)).float()[:, None, None]
    assert torch.equal(batch["action"], recorded["action"] * sign)
    assert torch.equal(batch["obs"]["state"], recorded["obs"]["state"] * sign)
    assert torch.equal(batch["action_is_pad"], recorded["action_is_pad"])

    held_out = both.get_validation_dataset()
    assert len(held_out) == len(plain.get_validation_dataset())
    assert torch.equal(held_out[0]["action"], plain.get_validation_dataset()[0]["action"])


@pytest.mark.parametrize("mirrored", [False, True])
def test_samples_count_from_both_ends_and_end(store, mirrored):
    dataset = WindowDataset(
        store, META, WINDOW, val_ratio=0, symmetry=lambda key, x: -x, mirrored=mirrored
    )
    assert torch.equal(dataset[-1]["action"], dataset[len(dataset) - 1]["action"])
    assert sum(1 for _ in dataset) == len(dataset)
    with pytest.raises(IndexError, match=r"samples \[100\] of"):
        dataset[100]


def test_what_a_symmetry_does_not_know_is_told_before_training(store):
    def of_actions(key: str, values: np.ndarray) -> np.ndarray:
        if key != "action":
            raise UserError(f"no mirror image of {key}")
        return values

    with pytest.raises(UserError, match="no mirror image of state"):
        WindowDataset(store, META, WINDOW, symmetry=of_actions, mirrored=True)


def test_nothing_is_mirrored_without_a_symmetry(store):
    with pytest.raises(UserError, match=r"task\.dataset\.mirrored is true, but"):
        WindowDataset(store, META, WINDOW, mirrored=True)
