from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from diffusion_policy.dataset.batch_order import BatchIndex, BatchOrder, as_is
from diffusion_policy.dataset.mixture import Mixture
from diffusion_policy.dataset.stores.memory_store import MemoryStore
from diffusion_policy.dataset.window_dataset import WindowDataset
from diffusion_policy.spec.window import Window
from diffusion_policy.util.errors import UserError
from tests.toys.toy_mixture import META, UNITS, WINDOW, toy_mixture, toy_store
from tests.toys.toy_store import TOY_META, ToyStore

N = {name: toy_store(name).n_steps for name in UNITS}
TOTAL = sum(N.values())
weights = st.fixed_dictionaries({name: st.floats(0.01, 100) for name in UNITS})


def test_every_row_is_the_sample_of_its_dataset():
    mixture = toy_mixture()
    alone = {
        name: WindowDataset(toy_store(name), META, WINDOW, val_ratio=0, embodiment=name)
        for name in UNITS
    }
    assert mixture.embodiments == ("large", "small")
    assert len(mixture) == TOTAL
    order = np.random.default_rng(0).permutation(TOTAL)
    batch = mixture.__getitems__(BatchIndex(order, seed=0))
    assert batch["embodiment"].dtype == torch.int64
    for row, i in enumerate(order.tolist()):
        name = "small" if i < N["small"] else "large"
        expected = alone[name][i if name == "small" else i - N["small"]]
        assert mixture.embodiments[batch["embodiment"][row]] == name
        assert batch["obs"]["task"][row] == name
        for key in ("action", "action_is_pad"):
            assert torch.equal(batch[key][row], expected[key])
        assert torch.equal(batch["obs"]["position"][row], expected["obs"]["position"])
        assert torch.equal(mixture[i]["action"], expected["action"])
    with pytest.raises(IndexError, match=f"sample {TOTAL} of {TOTAL}"):
        mixture[TOTAL]


def test_the_first_validation_samples_stand_for_all():
    held_out = toy_mixture(val_ratio=0.5).get_validation_dataset()
    order = held_out.evaluation_order()
    assert sorted(order) == list(range(len(held_out)))
    half = order[: len(order) // 2]
    sizes = [len(member) for member in held_out.members]
    counts = [(half < sizes[0]).sum(), (half >= sizes[0]).sum()]
    np.testing.assert_allclose(counts, np.array(sizes) / 2, atol=1)


@given(weights, st.integers(0, 5))
def test_weights_decide_the_share_of_an_epoch(weights, epoch):
    mixture = toy_mixture(weights)
    drawn = mixture.draw_epoch(np.random.default_rng(epoch))
    assert len(drawn) == TOTAL
    of_small = int((drawn < N["small"]).sum())
    assert of_small == pytest.approx(TOTAL * weights["small"] / sum(weights.values()), abs=1)
    times = np.bincount(drawn, minlength=TOTAL)
    for own in (times[: N["small"]], times[N["small"] :]):
        assert own.max() - own.min() <= 1, "one sample was drawn more often than another"


def test_shares_of_the_samples_make_an_epoch_of_each_once():
    drawn = toy_mixture(N).draw_epoch(np.random.default_rng(0))
    assert sorted(drawn) == list(range(TOTAL))
    assert drawn.tolist() != sorted(drawn)


def batches(mixture, num_workers=0, start=0, **processes):
    order = BatchOrder(len(mixture), 8, seed=3, draw=mixture.draw_epoch, **processes)
    order.seek(epoch=2, start=start)
    loader = DataLoader(mixture, batch_sampler=order, num_workers=num_workers, collate_fn=as_is)
    return list(loader)


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one["obs"]["task"] == other["obs"]["task"]
        for key in ("action", "embodiment"):
            assert torch.equal(one[key], other[key])


def test_the_order_resumes_and_depends_on_no_worker():
    window = Window((-3, 0), (-3, 0, 1), jitter=2)
    mixture = toy_mixture({"small": 3}, window)
    whole = batches(mixture)
    assert_equal(batches(mixture, start=3), whole[3:])
    assert_equal(batches(toy_mixture({"small": 3}, window), num_workers=2), whole)
    assert {int(i) for batch in whole for i in batch["embodiment"]} == {0, 1}


def test_processes_share_each_batch():
    mixture = toy_mixture({"small": 3})
    parts = [batches(mixture, rank=rank, n_processes=3) for rank in range(3)]
    for whole, *own in zip(batches(mixture), *parts, strict=True):
        assert torch.equal(torch.cat([part["action"] for part in own]), whole["action"])


def test_each_embodiment_has_its_own_statistics():
    mixture = toy_mixture()
    normalizer = mixture.get_normalizer({})
    assert normalizer.embodiment_names == mixture.embodiments
    batch = mixture.__getitems__(BatchIndex(np.arange(TOTAL), seed=0))
    normalised = normalizer.of(batch["embodiment"])["action"].normalize(batch["action"])
    for i in range(2):
        own = normalised[batch["embodiment"] == i]
        assert own.min() == pytest.approx(-1)
        assert own.max() == pytest.approx(1)


def test_datasets_of_one_embodiment_share_statistics():
    datasets = {
        name: partial(WindowDataset, toy_store(name), embodiment="robot", val_ratio=0)
        for name in UNITS
    }
    mixture = Mixture(META, WINDOW, datasets=datasets)
    normalizer = mixture.get_normalizer({})
    assert mixture.embodiments == ("robot",)
    assert normalizer.of(None) is normalizer
    assert normalizer["action"].get_input_stats()["max"][0] == (N["large"] - 1) * UNITS["large"]


def test_validation_holds_every_held_out_sample_once():
    mixture = toy_mixture({"small": 9}, val_ratio=0.4)
    held_out = mixture.get_validation_dataset()
    assert held_out.n_episodes == 2
    assert mixture.n_episodes == 3
    assert len(mixture) + len(held_out) == TOTAL
    order = BatchOrder(len(held_out), 4, seed=0, shuffle=False)
    tasks = [task for index in order for task in held_out.__getitems__(index)["obs"]["task"]]
    assert len(tasks) == len(held_out)
    assert set(tasks) == set(UNITS)


def test_a_mixture_is_known_by_the_content_of_all_its_datasets():
    def fingerprint(**lengths: list[int]) -> str:
        datasets = {n: partial(WindowDataset, ToyStore(v), val_ratio=0) for n, v in lengths.items()}
        return Mixture(TOY_META, WINDOW, datasets=datasets).fingerprint

    assert fingerprint(a=[5, 4], b=[6]) == fingerprint(a=[5, 4], b=[6])
    assert fingerprint(a=[5, 4], b=[6]) != fingerprint(a=[5, 4], b=[7])
    assert fingerprint(a=[5, 4], b=[6]) != fingerprint(a=[6], b=[5, 4])


def other_form(shape_meta, window):
    return WindowDataset(ToyStore([5]), TOY_META, window)


def too_short(shape_meta, window):
    arrays = {"position": np.zeros((1, 2)), "action": np.zeros((1, 2)), "task": ["a"]}
    store = MemoryStore(arrays, [1])
    return WindowDataset(store, shape_meta, Window((0,), (0, 4), pad_after=0), val_ratio=0)


small = partial(WindowDataset, toy_store("small"))


@pytest.mark.filterwarnings("ignore:.*too short to give")
@pytest.mark.parametrize(
    ("datasets", "weights", "message"),
    [
        ({}, {}, "datasets is empty"),
        ({"a": small}, {"b": 1}, r"weights has 'b', which is no dataset; use a"),
        ({"a": small}, {"a": 0}, r"weights\.a is 0; use more than 0"),
        ({"a": small, "b": too_short}, {}, r"datasets\.b has no sample"),
        ({"a": small, "b": other_form}, {}, r"datasets\.b has \{'left': 'rgb .*but a has"),
    ],
)
def test_what_cannot_be_mixed_is_refused(datasets, weights, message):
    with pytest.raises(UserError, match=message):
        Mixture(META, WINDOW, datasets=datasets, weights=weights)
