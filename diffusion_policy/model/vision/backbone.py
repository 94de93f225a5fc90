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
    name: str,
    weights: str | None,
    norm_layer: Callable[[int], nn.Module] = FrozenBatchNorm2d,
) -> nn.Module:
    """(N, 3, H, W) images to (N, ...), the last layer a linear one called ``fc``.

    Args:
        field: setting that names it, for errors.
        name: ``resnet18``, ``resnet34``, ``resnet50`` or ``keypoint_cnn``.
        weights: ``IMAGENET1K_V1``, or None for random ones; see :func:`build_resnet`.
        norm_layer: of a ResNet; the keypoint CNN has group norms.

    Raises:
        UserError: ``name`` is unknown, or has no pretrained weights and ``weights`` is given.
    """
    if name not in BACKBONES:
        raise UserError(f"{field} is {name!r}; use one of {', '.join(BACKBONES)}")
    if name in RESNETS:
        return build_resnet(name, weights, norm_layer)
    if weights is not None:
        raise UserError(
            f"{field} is {name!r}, which has no pretrained weights {weights!r}; set its weights "
            f"to null or use one of {', '.join(RESNETS)}"
        )
    return KeypointCNN()
