"""A vision transformer that turns an image into one vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torchvision
from torch import nn
from torchvision.models.vision_transformer import interpolate_embeddings

from diffusion_policy.model.vision.resnet import cached_weights
from diffusion_policy.util.errors import require

VIT = "vit_b_16"
PATCH = 16
"""Pixels per side of a patch."""


def build_vit(weights: str | None, image_size: Sequence[int]) -> nn.Module:
    """ViT-B/16 for square images: (N, 3, H, W) to its class token (N, 768).

    Positions of pretrained weights are interpolated to the number of patches.

    Args:
        weights: ``IMAGENET1K_V1``, or None for random weights; see :func:`cached_weights`.
        image_size: (height, width).

    Raises:
        UserError: patches do not divide the image, or it is not square.
    """
    side = image_size[0]
    fits = image_size[1] == side and side % PATCH == 0
    remedy = f"use two equal multiples of {PATCH}, the patches of {VIT}, as in [96, 96]"
    require(fits, "policy.image_size", list(image_size), remedy)
    vit = torchvision.models.vit_b_16(weights=None, image_size=side)
    path = None if weights is None else cached_weights(VIT, weights)
    if path is not None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        vit.load_state_dict(interpolate_embeddings(side, PATCH, state))
    vit.heads = nn.Identity()
    return vit
