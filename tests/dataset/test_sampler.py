"""Windows and episode masks equal the reference's; the step arithmetic equals a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.dataset.sampler import (
    SequenceSampler,
    clamp_to_episode,
    create_indices,
    downsample_mask,
    get_val_mask,
)
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from tests.reference import golden

SAMPLER, MASKS = golden("sampler"), golden("episode_masks")
CASES = [f"c{i}" for i in range(int(SAMPLER["n_cases"]))]


def buffer_of(data: dict[str, np.ndarray], episode_ends: np.ndarray) -> ReplayBuffer:
    return ReplayBuffer({"data": data, "meta": {"episode_ends": episode_ends}})


@pytest.mark.parametrize("case", CASES)
def test_windows_equal_the_reference(case):
    length, pad_before, pad_after = SAMPLER[f"{case}_params"].tolist()
    ends, mask = SAMPLER[f"{case}_episode_ends"], SAMPLER[f"{case}_mask"]
    indices = create_indices(ends, length, mask, pad_before, pad_after)
    assert indices.shape == (len(SAMPLER[f"{case}_indices"]), 4)
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(indices, SAMPLER[f"{case}_indices"])

    sampler = SequenceSampler(
        buffer_of({"x": SAMPLER[f"{case}_x"]}, ends),
        length,
        pad_before,
        pad_after,
        episode_mask=mask,
    )
    assert len(sampler) == len(indices)
    for i, expected in enumerate(SAMPLER[f"{case}_sequences"]):
        np.testing.assert_array_equal(sampler.sample_sequence(i)["x"], expected)


@pytest.mark.parametrize("name", sorted(MASKS))
def test_episode_masks_equal_the_reference(name):
    kind, n_episodes, limit, seed = name.split("_")
    mask = get_val_mask(int(n_episodes), float(limit) if kind == "val" else 0.02, int(seed))
    if kind == "down":
        mask = downsample_mask(~mask, int(limit), int(seed))
    np.testing.assert_array_equal(mask, MASKS[name])


def test_the_pusht_demonstrations_give_the_known_number_of_windows():
    # 206 episodes, 25,650 steps; a window of 16 with 1 + 7 padding starts at length - 7 places.
    lengths = np.full(206, 125)
    lengths[-1] = 25_650 - 205 * 125
    indices = create_indices(np.cumsum(lengths), 16, np.ones(206, dtype=bool), 1, 7)
    assert len(indices) == 24_208


def naive_indices(ends, length, mask, pad_before, pad_after):
    rows, start = [], 0
    for end, used in zip(ends, mask, strict=True):
        if used:
            for first in range(start - pad_before, end - length + pad_after + 1):
                inside = [t for t in range(first, first + length) if start <= t < end]
                rows.append([inside[0], inside[-1] + 1, inside[0] - first, inside[-1] + 1 - first])
        start = end
    return rows


@given(
    lengths=st.lists(st.integers(1, 9), max_size=6),
    length=st.integers(1, 8),
    data=st.data(),
)
def test_windows_equal_a_plain_loop(lengths, length, data):
    ends = np.cumsum(lengths, dtype=np.int64)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(ends), max_size=len(ends))))
    pads = data.draw(st.tuples(st.integers(0, length - 1), st.integers(0, length - 1)))
    found = create_indices(ends, length, mask.astype(bool), *pads)
    assert found.tolist() == naive_indices(ends.tolist(), length, mask, *pads)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    offsets=st.lists(st.integers(-12, 12), min_size=1, max_size=5),
)
def test_offsets_stop_at_the_edges_of_the_episode(lengths, offsets):
    ends = np.cumsum(lengths)
    starts = ends - lengths
    episode = np.repeat(np.arange(len(ends)), lengths)
    steps = np.arange(ends[-1])
    indices, is_pad = clamp_to_episode(steps, np.array(offsets), starts[episode], ends[episode])
    assert indices.shape == is_pad.shape == (len(steps), len(offsets))
    assert (indices.dtype, is_pad.dtype) == (np.int64, bool)
    for step in steps:
        inside = range(starts[episode[step]], ends[episode[step]])
        for k, offset in enumerate(offsets):
            wanted = step + offset
            assert is_pad[step, k] == (wanted not in inside)
            nearest = min(inside, key=lambda row: abs(row - wanted))
            assert indices[step, k] == nearest


def test_only_the_needed_first_steps_of_a_key_are_read():
    class Counting(np.ndarray):
        read = 0

        def __getitem__(self, rows):
            if isinstance(rows, slice):
                Counting.read = max(Counting.read, rows.stop - rows.start)
            return np.asarray(super().__getitem__(rows))

    x = np.arange(10.0)
    buffer = buffer_of({"x": x, "image": x.view(Counting)}, np.array([10]))
    Counting.read = 0
    sampler = SequenceSampler(buffer, 6, pad_before=1, key_first_k={"image": 2})
    first, second = sampler.sample_sequence(0), sampler.sample_sequence(1)
    assert first["x"].tolist() == [0, 0, 1, 2, 3, 4]
    assert first["image"][:2].tolist() == [0, 0]
    assert second["image"][:2].tolist() == [0, 1]
    assert len(first["image"]) == 6
    assert Counting.read == 2


def test_a_sampler_reads_only_its_keys_from_zarr():
    buffer = ReplayBuffer.create_empty_zarr()
    buffer.add_episode({"x": np.arange(4), "y": np.zeros(4)})
    sample = SequenceSampler(buffer, 3, keys=["x"]).sample_sequence(1)
    assert {k: v.tolist() for k, v in sample.items()} == {"x": [1, 2, 3]}


@pytest.mark.parametrize(("n_episodes", "ratio", "n_val"), [(10, 0, 0), (1, 0.5, 0), (5, 1.0, 4)])
def test_some_episode_is_left_to_train_on(n_episodes, ratio, n_val):
    assert get_val_mask(n_episodes, ratio, seed=1).sum() == n_val


def test_masks_keep_all_when_the_cap_is_none_or_large():
    mask = np.array([True, False, True])
    for cap in (None, 2, 9):
        np.testing.assert_array_equal(downsample_mask(mask, cap), mask)
    kept = downsample_mask(mask, 1, seed=3)
    assert kept.sum() == 1
    assert not (kept & ~mask).any()
