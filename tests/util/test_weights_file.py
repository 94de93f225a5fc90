from __future__ import annotations

import numpy as np
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
