"""One vector for all cameras of a time step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

from diffusion_policy.model.vision.backbone import BACKBONES, build_backbone
from diffusion_policy.model.vision.vit import VIT, build_vit
from diffusion_policy.util.errors import require


class ImageVectors(nn.Module):
    """A network for each camera, their features side by side.

    Args:
        n_cameras: images of a time step; at least 1.
        backbone: one of :data:`BACKBONES`, or ``vit_b_16``.
        weights: see :func:`build_backbone` and :func:`build_vit`.
        group_norm: group norms in a ResNet, which can train from random weights; otherwise batch
            norms keep the statistics of the weights.
        image_size: (height, width) that images are resized to, bilinear with antialiasing.

    Attributes:
        n_features: F, numbers of a vector.

    Raises:
        UserError: the backbone or its weights are unknown, or do not fit the size of the images.
    """

    def __init__(
        self,
        n_cameras: int,
        backbone: str,
        weights: str | None,
        group_norm: bool,
        image_size: Sequence[int],
    ) -> None:
        super().__init__()
        known = (*BACKBONES, VIT)
        require(backbone in known, "policy.backbone", backbone, f"use one of {', '.join(known)}")
        self.image_size = (int(image_size[0]), int(image_size[1]))
        n_features = 0
        self.backbones = nn.ModuleList()
        for _ in range(n_cameras):
            network, n_own = _build(backbone, weights, group_norm, self.image_size)
            self.backbones.append(network)
            n_features += n_own
        self.n_features = n_features

    def forward(self, images: Sequence[Tensor]) -> Tensor:
        """Normalised images (N, 3, h, w) of each camera -> (N, F)."""
        features = [
            backbone(_resized(image, self.image_size))
            for backbone, image in zip(self.backbones, images, strict=True)
        ]
        return torch.cat(features, dim=-1)


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True)


def _build(
    name: str, weights: str | None, group_norm: bool, image_size: tuple[int, int]
) -> tuple[nn.Module, int]:
    """A network to one vector, and how many numbers that has."""
    if name == VIT:
        vit: Any = build_vit(weights, image_size)
        return vit, vit.hidden_dim
    norm_layer = nn.BatchNorm2d if group_norm else FrozenBatchNorm2d
    backbone: Any = build_backbone(
        "policy.backbone", "policy.backbone_weights", name, weights, norm_layer, group_norm
    )
    n_features = backbone.fc.in_features
    backbone.fc = nn.Identity()
    return backbone, n_features
