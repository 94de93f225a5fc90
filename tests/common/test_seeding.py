import random

import numpy as np
import torch

from diffusion_policy.common.seeding import get_rng_state, seed_everything, set_rng_state


def draws() -> tuple:
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(3)  # noqa: NPY002


def test_state_restores_every_generator_through_a_file(tmp_path):
    seed_everything(3)
    draws()
    torch.save(get_rng_state(), tmp_path / "state")
    expected = draws()
    seed_everything(4)
    set_rng_state(torch.load(tmp_path / "state", weights_only=True))
    for a, b in zip(expected, draws(), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))


def test_seeds_repeat():
    seed_everything(7)
    first = draws()
    seed_everything(7)
    for a, b in zip(first, draws(), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
