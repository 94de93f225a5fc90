"""The networks that turn a picture into a vector, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.ops.misc import FrozenBatchNorm2d

from diffusion_policy.model.vision.group_norm import replace_batch_norm
from diffusion_policy.model.vision.keypoint_cnn import KeypointCNN
from diffusion_policy.model.vision.resnet import RESNETS, build_resnet
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.output_dir import write_atomically
from diffusion_policy.util.weights_file import WEIGHTS_SUFFIX, read_weights, weights_bytes

KEYPOINT_CNN = "keypoint_cnn"
BACKBONES = (*RESNETS, KEYPOINT_CNN)


def build_backbone(
    field: str,
    weights_field: str,
    name: str,
    weights: str | None,
    norm_layer: Callable[[int], nn.Module] = FrozenBatchNorm2d,
    group_norm: bool = False,
) -> nn.Module:
    """(N, 3, H, W) images to (N, ...), the last layer a linear one called ``fc``.

    Args:
        field, weights_field: settings that name it and its weights, for errors.
        name: ``resnet18``, ``resnet34``, ``resnet50`` or ``keypoint_cnn``.
        weights: path of a ``.safetensors`` file of its state_dict, in which ``fc`` may lack;
            ``IMAGENET1K_V1`` for a ResNet, see :func:`build_resnet`; None for random ones.
        norm_layer: of a ResNet; the keypoint CNN always has group norms.
        group_norm: put fresh group norms in place of a ResNet's batch norms. Those of a file are
            its own: it is to be of such a network.

    Raises:
        UserError: ``name`` is unknown, or ``weights`` are not there or another network's.
    """
    if name not in BACKBONES:
        raise UserError(f"{field} is {name!r}; use one of {', '.join(BACKBONES)}")
    is_file = isinstance(weights, str) and weights.endswith(WEIGHTS_SUFFIX)
    file = weights if is_file else None
    named = weights if file is None else None
    known = tuple(get_model_weights(name).__members__) if name in RESNETS else ()
    if named is not None and named not in known:
        choice = ", ".join((*known, "null"))
        raise UserError(
            f"{weights_field} is {named!r}; for {name} use {choice}, or a {WEIGHTS_SUFFIX} file"
        )
    backbone = build_resnet(name, named, norm_layer) if name in RESNETS else KeypointCNN()
    if group_norm:
        replace_batch_norm(backbone)
    if file is not None:
        _load(backbone, Path(file), f"{weights_field} is {file!r}")
    return backbone


def save_backbone(backbone: nn.Module, path: Path, facts: Mapping[str, str]) -> None:
    """Write the weights, without the last layer's, as :func:`build_backbone` reads them.

    Args:
        path: of a ``.safetensors`` file, replaced as a whole.
        facts: about the weights, kept in the file.

    Raises:
        UserError: the file cannot be written.
    """
    write_atomically(path, weights_bytes(_body(backbone.state_dict()), facts))


def _load(backbone: nn.Module, path: Path, setting: str) -> None:
    try:
        weights = _body(read_weights(path))
    except UserError as error:
        raise UserError(f"{setting}: {error}") from None
    if _shapes(weights) != _shapes(_body(backbone.state_dict())):
        raise UserError(
            f"{setting}, the weights of another network; give those of this backbone, with the "
            "same norms"
        )
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
