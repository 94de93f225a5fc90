"""The networks that turn a picture into a vector, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torchvision.ops.misc import FrozenBatchNorm2d

from diffusion_policy.common.atomic_file import replacing
from diffusion_policy.common.errors import UserError
from diffusion_policy.model.vision.keypoint_cnn import KeypointCNN
from diffusion_policy.model.vision.resnet import RESNETS, build_resnet

KEYPOINT_CNN = "keypoint_cnn"
BACKBONES = (*RESNETS, KEYPOINT_CNN)
SUFFIX = ".safetensors"
"""Of a file of weights."""


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
        weights: path of a ``.safetensors`` file of its state_dict, in which ``fc`` may lack;
            ``IMAGENET1K_V1`` for a ResNet, see :func:`build_resnet`; None for random ones.
        norm_layer: of a ResNet; the keypoint CNN always has group norms.

    Raises:
        UserError: ``name`` is unknown, or ``weights`` are not there or another network's.
    """
    if name not in BACKBONES:
        raise UserError(f"{field} is {name!r}; use one of {', '.join(BACKBONES)}")
    path = Path(weights) if weights is not None and weights.endswith(SUFFIX) else None
    if path is not None:
        weights = None
    if name in RESNETS:
        backbone = build_resnet(name, weights, norm_layer)
    elif weights is None:
        backbone = KeypointCNN()
    else:
        raise UserError(
            f"{weights_field} is {weights!r}, which {name} does not have; use null, a {SUFFIX} "
            f"file, or one of {', '.join(RESNETS)} as {field}"
        )
    if path is not None:
        _load(backbone, path, f"{weights_field} is {str(path)!r}")
    return backbone


def save_backbone(backbone: nn.Module, path: Path, facts: Mapping[str, str]) -> None:
    """Write the weights, without the last layer's, as :func:`build_backbone` reads them.

    Args:
        path: of a ``.safetensors`` file, replaced as a whole.
        facts: about the weights, kept in the file.
    """
    weights = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in _body(backbone.state_dict()).items()
    }
    with replacing(path) as partial:
        partial.write_bytes(save(weights, metadata=dict(facts)))


def _load(backbone: nn.Module, path: Path, setting: str) -> None:
    try:
        weights = _body(load_file(path))
    except FileNotFoundError:
        raise UserError(f"{setting}, which does not exist; give the path of a file") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"{setting}, which cannot be read ({error}); get it again") from None
    if _shapes(weights) != _shapes(_body(backbone.state_dict())):
        raise UserError(f"{setting}, the weights of another network; give those of this backbone")
    backbone.load_state_dict(weights, strict=False)


def _body(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those below the last layer. FrozenBatchNorm keeps no count of batches."""
    return {
        key: value
        for key, value in weights.items()
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    }


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in weights.items()}
