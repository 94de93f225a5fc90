import pytest
import torch
from torch import nn

from diffusion_policy.model.vision.group_norm import replace_batch_norm
from diffusion_policy.model.vision.resnet import build_resnet


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_every_batch_norm_becomes_groups_of_16_channels(name):
    resnet = build_resnet(name, None, norm_layer=nn.BatchNorm2d)
    before = {n: m for n, m in resnet.named_modules() if isinstance(m, nn.BatchNorm2d)}
    replace_batch_norm(resnet)
    after = {n: m for n, m in resnet.named_modules() if isinstance(m, nn.GroupNorm)}
    assert not any(isinstance(m, nn.BatchNorm2d) for m in resnet.modules())
    assert list(after) == list(before)
    for name, norm in after.items():
        assert norm.num_channels == before[name].num_features
        assert norm.num_channels == 16 * norm.num_groups


def test_rows_of_a_batch_do_not_meet():
    resnet = build_resnet("resnet18", None, norm_layer=nn.BatchNorm2d)
    replace_batch_norm(resnet)
    images = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(resnet(images)[:1], resnet(images[:1]), atol=1e-4, rtol=1e-4)
