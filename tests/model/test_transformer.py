import pytest
import torch
from torch import nn

from diffusion_policy.model.dot.transformer import TransformerDecoder


@pytest.mark.parametrize("masked", [False, True])
def test_equals_torch(masked):
    layer = nn.TransformerDecoderLayer(16, 4, 32, 0.0, batch_first=True, norm_first=True)
    theirs = nn.TransformerDecoder(layer, 2, nn.LayerNorm(16))
    ours = TransformerDecoder(2, 16, 4, 32, dropout=0.1).eval()
    ours.load_state_dict(theirs.state_dict())
    x, memory = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
    allowed = torch.ones(5, 5).tril().bool() if masked else None
    forbidden = ~allowed if masked else None
    expected = theirs(x, memory, tgt_mask=forbidden)
    torch.testing.assert_close(ours(x, memory, allowed), expected, atol=1e-5, rtol=1e-5)


def test_dropout_path_equals_fused_path_on_average():
    torch.manual_seed(0)
    decoder = TransformerDecoder(1, 16, 4, 32, dropout=0.05)
    x, memory = torch.randn(1, 5, 16).expand(4000, -1, -1), torch.randn(1, 7, 16)
    memory = memory.expand(4000, -1, -1)
    with torch.no_grad():
        dropped = decoder.train()(x, memory, None).mean(0)
        exact = decoder.eval()(x, memory, None)[0]
    torch.testing.assert_close(dropped, exact, atol=0.05, rtol=0)
