import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffusion_policy.model.common.transformer import TransformerDecoder, TransformerEncoder

ALLOWED = torch.ones(5, 7).tril(diagonal=1).bool()
# The same masks in both of their forms.
MASKS = {
    "none": lambda allowed: None,
    "bool": lambda allowed: allowed,
    "float": lambda allowed: torch.zeros(allowed.shape).masked_fill(~allowed, -torch.inf),
}


@pytest.fixture(params=[(False, 3), (False, 9), (True, 3)], ids=["few", "many", "training"])
def n_rows(request):
    # Attention has a path of its own for many rows, and where gradients are wanted.
    grad, rows = request.param
    with torch.set_grad_enabled(grad):
        yield rows


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("activation", [F.relu, F.gelu])
@pytest.mark.parametrize("final_norm", [True, False])
def test_decoder_equals_torch(mask, activation, final_norm, n_rows):
    layer = nn.TransformerDecoderLayer(
        16, 4, 32, 0.0, activation, batch_first=True, norm_first=True
    )
    theirs = nn.TransformerDecoder(layer, 2, nn.LayerNorm(16) if final_norm else None)
    ours = TransformerDecoder(2, 16, 4, 32, 0.1, activation, final_norm).eval()
    ours.load_state_dict(theirs.state_dict())
    x, memory = torch.randn(n_rows, 5, 16), torch.randn(n_rows, 7, 16)
    allowed, memory_allowed = ALLOWED[:, 1:6], ALLOWED
    expected = theirs(
        x,
        memory,
        tgt_mask=None if mask == "none" else ~allowed,
        memory_mask=None if mask == "none" else ~memory_allowed,
    )
    actual = ours(x, memory, MASKS[mask](allowed), MASKS[mask](memory_allowed))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("activation", [F.relu, F.gelu])
def test_encoder_equals_torch(mask, activation, n_rows):
    layer = nn.TransformerEncoderLayer(
        16, 4, 32, 0.0, activation, batch_first=True, norm_first=True
    )
    theirs = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    ours = TransformerEncoder(2, 16, 4, 32, 0.1, activation).eval()
    ours.load_state_dict(theirs.state_dict())
    x, allowed = torch.randn(n_rows, 5, 16), ALLOWED[:, 1:6]
    expected = theirs(x, mask=None if mask == "none" else ~allowed)
    torch.testing.assert_close(ours(x, MASKS[mask](allowed)), expected, atol=1e-5, rtol=1e-5)


def test_dropout_path_equals_fused_path_on_average():
    torch.manual_seed(0)
    decoder = TransformerDecoder(1, 16, 4, 32, dropout=0.05)
    x, memory = torch.randn(1, 5, 16).expand(4000, -1, -1), torch.randn(1, 7, 16)
    memory = memory.expand(4000, -1, -1)
    with torch.no_grad():
        dropped = decoder.train()(x, memory, None).mean(0)
        exact = decoder.eval()(x, memory, None)[0]
    torch.testing.assert_close(dropped, exact, atol=0.05, rtol=0)
