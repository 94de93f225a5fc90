"""The networks that turn a picture into a vector, by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d

from diffusion_policy.common.errors import UserError
from diffusion_policy.model.vision.keypoint_cnn import KeypointCNN
from diffusion_policy.model.vision.resnet import RESNETS, build_resnet

KEYPOINT_CNN = "keypoint_cnn"
BACKBONES = (*RESNETS, KEYPOINT_CNN)


def build_backbone(
    field: str,
    weights_field: str,
    name: str,
    weights: str | None,
    norm_layer: Callable[[int], nn.Module] = FrozenBatchNorm2d,
) -> nn.Module:
    """(N, 3, H, W) images to (N, ...), the last layer a linear one called ``fc``.

    Args:
        field, weights_field: settings that name it and its weights, for errors.
        name: ``resnet18``, ``resnet34``, ``resnet50`` or ``keypoint_cnn``.
        weights: ``IMAGENET1K_V1``, or None for random ones; see :func:`build_resnet`.
        norm_layer: of a ResNet; the keypoint CNN always has group norms.

    Raises:
        UserError: ``name`` is unknown, or has no pretrained weights and ``weights`` is given.
    """
    if name not in BACKBONES:
        raise UserError(f"{field} is {name!r}; use one of {', '.join(BACKBONES)}")
    if name in RESNETS:
        return build_resnet(name, weights, norm_layer)
    if weights is not None:
        raise UserError(
            f"{weights_field} is {weights!r}, but {name} has no pretrained weights; use null, or "
            f"one of {', '.join(RESNETS)} as {field}"
        )
    return KeypointCNN()
