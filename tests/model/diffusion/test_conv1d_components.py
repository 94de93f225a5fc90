import pytest
import torch
from torch import nn

from diffusion_policy.model.diffusion.conv1d_components import Conv1d, ConvTranspose1d

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
