import random

import numpy as np
import torch

from diffusion_policy.common.seeding import seed_everything


def draws() -> tuple:
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(3)  # noqa: NPY002


def test_seeds_repeat():
    seed_everything(7)
    first = draws()
    seed_everything(7)
    for a, b in zip(first, draws(), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
