import copy

import pytest
import torch
from torch import nn

from diffusion_policy.model.diffusion.ema_model import (
    EMAModel,
    averaged_state,
    copy_to_average,
    merged_state,
)
from tests.reference import golden


def test_decay_equals_reference():
    record = golden("ema")
    ema = EMAModel(nn.Linear(1, 1), power=0.75, max_value=0.9999)
    decays = [ema.get_decay(int(step)) for step in record["steps"]]
    assert decays == pytest.approx(record["decay"].tolist(), abs=1e-12)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1).requires_grad_(False))


def test_average_follows_the_formula_and_copies_the_rest():
    torch.manual_seed(0)
    live = model()
    ema = EMAModel(copy.deepcopy(live), power=0.75)
    expected = live[0].weight.detach().clone()
    for step in range(5):
        with torch.no_grad():
            for parameter in live.parameters():
                parameter.add_(torch.randn_like(parameter))
        live[1](torch.randn(8, 2))
        ema.step(live)
        decay = ema.get_decay(step)
        expected = decay * expected + (1 - decay) * live[0].weight.detach()
    torch.testing.assert_close(ema.averaged_model[0].weight, expected)
    assert torch.equal(ema.averaged_model[2].weight, live[2].weight)
    assert torch.equal(ema.averaged_model[1].running_mean, live[1].running_mean)


def test_only_what_trains_is_kept_twice():
    live = model()
    ema = EMAModel(copy_to_average(live))
    frozen, trains = live[2].weight, live[0].weight
    assert ema.averaged_model[2].weight is frozen
    assert ema.averaged_model[0].weight is not trains
    for _ in range(3):
        with torch.no_grad():
            trains.add_(1)
        live[1](torch.randn(8, 2))
        ema.step(live)
    kept = averaged_state(ema.averaged_model, live)
    assert set(kept) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    restored = model()
    restored.load_state_dict(merged_state(live.state_dict(), kept))
    for key, value in ema.averaged_model.state_dict().items():
        assert torch.equal(restored.state_dict()[key], value), key


def test_counter_survives():
    ema = EMAModel(model())
    live = model()
    for _ in range(3):
        ema.step(live)
    other = EMAModel(model())
    other.load_state_dict(ema.state_dict())
    assert other.optimization_step == 3
