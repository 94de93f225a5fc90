import pytest
import torch
from torch import nn

from diffusion_policy.model.common.cpu_kernels import (
    Conv1d,
    ConvTranspose1d,
    Dropout,
    dropout_mask,
)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_mask_keeps_the_mean_and_drops_the_asked_share(p):
    torch.manual_seed(0)
    mask = dropout_mask(torch.empty(300, 1001), p)
    assert mask.mean().item() == pytest.approx(1.0, abs=0.01)
    assert (mask == 0).float().mean().item() == pytest.approx(p, abs=1 / 256 + 0.005)
    assert len(mask.unique()) == 2


def test_every_byte_of_a_draw_is_random():
    torch.manual_seed(0)
    kept = (dropout_mask(torch.empty(8 * 20_000), 0.25) > 0).float().view(-1, 8)
    torch.testing.assert_close(kept.mean(0), torch.full((8,), 0.75), atol=0.02, rtol=0)
    correlation = torch.corrcoef(kept.T) - torch.eye(8)
    assert correlation.abs().max() < 0.05


def test_add_equals_residual_plus_dropout():
    x, residual = torch.randn(4, 7), torch.randn(4, 7)
    layer = Dropout(0.5)
    torch.manual_seed(3)
    expected = residual + layer(x)
    torch.manual_seed(3)
    torch.testing.assert_close(layer.add(residual, x), expected)


def test_evaluation_changes_nothing():
    x = torch.randn(5, 5)
    assert torch.equal(Dropout(0.5).eval()(x), x)


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_impossible_probability_is_refused(p):
    with pytest.raises(ValueError, match="dropout is"):
        Dropout(p)


LAYERS = [
    (nn.Conv1d, Conv1d, {"kernel_size": 1}),
    (nn.Conv1d, Conv1d, {"kernel_size": 5, "padding": 2}),
    (nn.Conv1d, Conv1d, {"kernel_size": 3, "padding": 1, "stride": 2}),
    (nn.ConvTranspose1d, ConvTranspose1d, {"kernel_size": 4, "padding": 1, "stride": 2}),
]


@pytest.mark.parametrize(("theirs", "ours", "sizes"), LAYERS)
@pytest.mark.parametrize("shape", [(1, 6, 4), (4, 6, 4), (1, 6, 16), (5, 6, 4)])
def test_few_rows_are_convolved_alike(theirs, ours, sizes, shape):
    torch.manual_seed(0)
    layer = ours(6, 8, **sizes)
    x = torch.randn(shape)
    expected = theirs.forward(layer, x)
    with torch.no_grad():
        found = layer(x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    layer(x).sum().backward()  # with gradients too
    assert layer.weight.grad is not None
