import pytest
import torch
from torch import nn

from diffusion_policy.model.common.inference import undisturbed

CPU = torch.device("cpu")


def test_draws_from_its_seed_and_leaves_the_random_numbers_alone():
    module = nn.Dropout()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    draws = []
    for _ in range(2):
        with undisturbed(module, CPU, seed=11):
            draws.append(torch.rand(4))
    assert torch.equal(torch.rand(4), expected)
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], torch.rand(4, generator=torch.Generator().manual_seed(11)))


def test_evaluates_without_gradients():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    with undisturbed(module, CPU, seed=0):
        assert not any(part.training for part in module.modules())
        assert not module(torch.ones(2)).requires_grad
    assert torch.is_grad_enabled()


def test_every_part_returns_to_its_own_mode_even_after_an_error():
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Dropout()))
    module[1][0].eval()  # a part that training keeps frozen
    modes = [part.training for part in module.modules()]
    state = torch.get_rng_state()
    with pytest.raises(ArithmeticError), undisturbed(module, CPU, seed=0):  # noqa: PT012
        torch.rand(1)
        raise ArithmeticError
    assert [part.training for part in module.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_computed_inside_can_be_trained_on():
    """A cache filled during a rollout must not break the next training step."""
    linear = nn.Linear(2, 2)
    with undisturbed(linear, CPU, seed=0):
        cached = torch.ones(2) * 3
    linear(cached).sum().backward()
    assert linear.weight.grad.eq(3).all()
