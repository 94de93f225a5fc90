import logging
import socket
import threading
import urllib.request

import pytest
import torch
import torchvision
from torchvision.ops.misc import FrozenBatchNorm2d

from diffusion_policy.model.vision import resnet


def use_proxy(monkeypatch, port: int) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of its first use


def test_cached_weights_are_used(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    entry = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    (tmp_path / "checkpoints").mkdir()
    pretrained = torchvision.models.resnet18()
    torch.save(pretrained.state_dict(), tmp_path / "checkpoints" / entry.url.rpartition("/")[2])
    built = resnet.build_resnet("resnet18", "IMAGENET1K_V1")
    assert torch.equal(built.layer3[1].conv2.weight, pretrained.layer3[1].conv2.weight)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in built.modules())
    assert any(isinstance(m, FrozenBatchNorm2d) for m in built.modules())


def test_unreachable_weights_are_random_with_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    use_proxy(monkeypatch, port=9)
    with caplog.at_level(logging.WARNING):
        built = resnet.build_resnet("resnet18", "IMAGENET1K_V1")
    assert len(caplog.records) == 1
    assert "using random weights" in caplog.text
    assert built.conv1.weight.std() > 0
    assert not list((tmp_path / "checkpoints").glob("*.pth"))


def test_a_network_that_swallows_everything_is_given_up(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(resnet, "_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # Without a timeout of ours the connection is cut at last, for another reason.
        cut = threading.Timer(5, lambda: silent.accept()[0].close())
        cut.start()
        use_proxy(monkeypatch, port=silent.getsockname()[1])
        with caplog.at_level(logging.WARNING):
            resnet.build_resnet("resnet18", "IMAGENET1K_V1")
        cut.cancel()
        cut.join()
    assert "timed out" in caplog.text
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("side", [64, 96])
def test_spatial_tokens_are_cells_in_reading_order(side):
    backbone = resnet.build_resnet("resnet18", None)
    tokens = resnet.SpatialTokens(backbone, 8).eval()
    image = torch.randn(2, 3, side, side)
    assert tokens(image).shape == (2, (side // 32) ** 2, 8)
    with torch.no_grad():
        pooled = tokens(image).mean(1)
        features = torch.nn.Sequential(*list(backbone.children())[:-1])(image).flatten(1)
        torch.testing.assert_close(pooled, tokens.fc(features), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_folded_norms_leave_the_features_as_they_are(name):
    torch.manual_seed(0)
    backbone = resnet.build_resnet(name, None).double()
    for module in backbone.modules():
        if isinstance(module, FrozenBatchNorm2d):
            for buffer in (module.weight, module.running_var):
                buffer.uniform_(0.5, 1.5)
            for buffer in (module.bias, module.running_mean):
                buffer.normal_(std=0.1)
    image = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        before = backbone(image)
        resnet.fold_frozen_norm(backbone)
        torch.testing.assert_close(backbone(image), before)
    assert not any(isinstance(module, FrozenBatchNorm2d) for module in backbone.modules())
