import random
from functools import partial

import numpy as np
import pytest
import torch

from diffusion_policy.util.seeding import seed_everything, seed_step


def draws() -> tuple:
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(3)  # noqa: NPY002


@pytest.mark.parametrize("seed", [seed_everything, partial(seed_step, device=torch.device("cpu"))])
def test_seeds_repeat(seed):
    seed(7)
    first = draws()
    seed(7)
    for a, b in zip(first, draws(), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
