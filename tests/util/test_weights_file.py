from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save

from diffusion_policy.util.errors import UserError
from diffusion_policy.util.weights_file import read_weights, weights_bytes
from tests.states import assert_equal_states

WEIGHTS = {
    "a": torch.arange(200.0).reshape(10, 20),
    "b": torch.ones(3, dtype=torch.bfloat16),
    "scalar": torch.tensor(7),
    "none": torch.zeros(0, 2),
}


def test_round_trip(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(weights_bytes({**WEIGHTS, "a": WEIGHTS["a"].T}, {"made": "by hand"}))
    assert_equal_states(read_weights(path), {**WEIGHTS, "a": WEIGHTS["a"].T})


def test_files_without_a_checksum_are_read(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(save(WEIGHTS))
    assert_equal_states(read_weights(path), WEIGHTS)


def test_a_flipped_bit_is_refused_or_harmless(tmp_path):
    path = tmp_path / "w.safetensors"
    whole, refused = weights_bytes(WEIGHTS), 0
    for place in np.random.default_rng(0).choice(8 * len(whole), 300, replace=False):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            loaded = read_weights(path)
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017 -- a flip in the checksum's name is harmless
            refused += 1
        else:
            assert_equal_states(loaded, WEIGHTS)
    assert refused > 280


def header(length: int, text: str = "", data: bytes = b"") -> bytes:
    return length.to_bytes(8, "little") + text.encode() + data


def of_tensors(*offsets: tuple[int, int]) -> bytes:
    entries = {
        str(i): {"dtype": "F32", "shape": [2], "data_offsets": list(pair)}
        for i, pair in enumerate(offsets)
    }
    text = json.dumps(entries)
    return header(len(text), text, bytes(16))


@pytest.mark.parametrize(
    "content",
    [
        header(2**63),
        header(2**30, "{}"),
        header(100_000_000, "{}"),
        of_tensors((0, 8), (4, 12)),  # overlapping
        of_tensors((0, 8), (0, 8)),
        of_tensors((0, 8), (8, 2**40)),
        of_tensors((8, 0), (8, 16)),
        header(200_000, '{"a":' * 40_000),
    ],
)
def test_hostile_headers_are_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
