"""ResNet backbones: one feature vector per image, or one token per cell of the feature map."""

from __future__ import annotations

import itertools
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops.misc import FrozenBatchNorm2d

log = logging.getLogger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_TIMEOUT_S = 10.0  # of a download, without a single byte
STRIDE = 32
"""Pixels per side of a cell of the last feature map."""
RESNETS = ("resnet18", "resnet34", "resnet50")


def build_resnet(
    name: str,
    weights: str | None,
    norm_layer: Callable[[int], nn.Module] = FrozenBatchNorm2d,
) -> nn.Module:
    """A torchvision ResNet, its BatchNorms frozen by default.

    Args:
        name: ``resnet18``, ``resnet34`` or ``resnet50``.
        weights: ``IMAGENET1K_V1``, or None for random weights. When they are neither cached
            nor reachable the weights are random and one warning says so.
        norm_layer: ``FrozenBatchNorm2d``, or ``BatchNorm2d`` to train it.
    """
    build = getattr(torchvision.models, name)
    path = None if weights is None else cached_weights(name, weights)
    resnet = build(weights=None, norm_layer=norm_layer)
    if path is not None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        # FrozenBatchNorm keeps no count of batches.
        if norm_layer is FrozenBatchNorm2d:
            state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
        resnet.load_state_dict(state)
    return resnet


def cached_weights(name: str, weights: str) -> Path | None:
    """The file of pretrained weights from torch's cache or the network; None if neither has it."""
    entry = torchvision.models.get_model_weights(name)[weights]
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _socket_timeout(_TIMEOUT_S):
            torch.hub.download_url_to_file(
                entry.url, str(path), hash_prefix=path.stem.split("-")[-1]
            )
    except (URLError, OSError, RuntimeError) as error:
        log.warning(
            "%s %s weights are not in %s and could not be fetched (%s); using random weights; "
            "to train them, DOT, which freezes them, then needs policy.lora_rank=0, and ACT and BC "
            "policy.group_norm=true",
            name,
            weights,
            path.parent,
            error,
        )
        return None
    return path


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """A timeout for downloads, which have none of their own and would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


class LoRAConv2d(nn.Module):
    """A frozen convolution plus a trained low-rank update of its weight (Hu et al. 2021).

    Effective weight: ``base + (A @ B).view(base.shape)`` with A (out, rank) and
    B (rank, in * kh * kw), both drawn from N(0, 0.02).
    """

    def __init__(self, base_conv: nn.Conv2d, rank: int) -> None:
        super().__init__()
        self.base_conv = base_conv.requires_grad_(False)
        weight = base_conv.weight
        self.lora_A = nn.Parameter(torch.randn(weight.shape[0], rank) * 0.02)
        self.lora_B = nn.Parameter(torch.randn(rank, weight[0].numel()) * 0.02)

    def effective_weight(self) -> Tensor:
        """The convolution's weight with the update folded in, (out, in, kh, kw)."""
        base = self.base_conv.weight
        return base + (self.lora_A @ self.lora_B).view(base.shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_conv._conv_forward(x, self.effective_weight(), self.base_conv.bias)

    def merged(self) -> nn.Conv2d:
        """A plain convolution with the same output."""
        with torch.no_grad():
            self.base_conv.weight.copy_(self.effective_weight())
        return self.base_conv


def add_conv_lora(module: nn.Module, rank: int) -> None:
    """Replace every Conv2d below ``module`` by a :class:`LoRAConv2d` of that rank, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, LoRAConv2d(child, rank))
        else:
            add_conv_lora(child, rank)


def merge_conv_lora(module: nn.Module) -> None:
    """Replace every :class:`LoRAConv2d` below ``module`` by its merged Conv2d, in place."""
    for name, child in module.named_children():
        if isinstance(child, LoRAConv2d):
            setattr(module, name, child.merged())
        else:
            merge_conv_lora(child)


def fold_frozen_norm(module: nn.Module) -> None:
    """Fold every FrozenBatchNorm2d below ``module`` into the Conv2d before it, in place."""
    # Modules of a ResNet are defined in the order of their use.
    for (_, conv), (name, norm) in itertools.pairwise(list(module.named_children())):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, FrozenBatchNorm2d):
            statistics = norm.running_mean, norm.running_var, norm.eps
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, *statistics, norm.weight, norm.bias
            )
            setattr(module, name, nn.Identity())
    for child in module.children():
        fold_frozen_norm(child)


class SpatialTokens(nn.Module):
    """A ResNet without pooling: each cell of the last feature map becomes a token.

    96 x 96 pixels give 3 x 3 cells of 512 channels (ResNet-18), each projected to ``dim``.
    """

    def __init__(self, resnet: nn.Module, dim: int) -> None:
        super().__init__()
        # Attributes keep torchvision's names, so that its weights load.
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            setattr(self, name, getattr(resnet, name))
        self.fc = nn.Linear(resnet.fc.in_features, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images -> (N, H/32 * W/32, dim)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.flatten(2).transpose(1, 2))
