import random

import numpy as np
import pytest
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpus_that_are_missing_here_are_left_out():
    seed_everything(3)
    state = get_rng_state()
    expected = torch.rand(3, device="cuda:0")
    state["cuda"] = [*state["cuda"], state["cuda"][0]]
    set_rng_state(state)
    assert torch.equal(torch.rand(3, device="cuda:0"), expected)


@pytest.mark.parametrize("n_gpus", [0, 1, 3])
def test_each_gpu_takes_its_own_state(monkeypatch, n_gpus):
    state, restored = get_rng_state(), {}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda s, gpu: restored.update({gpu: s}))
    set_rng_state({**state, "cuda": ["first", "second"]})
    assert restored == dict(enumerate(["first", "second"][:n_gpus]))


def test_seeds_repeat():
    seed_everything(7)
    first = draws()
    seed_everything(7)
    for a, b in zip(first, draws(), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
