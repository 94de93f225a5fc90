"""The networks that turn an image into a vector, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.ops.misc import FrozenBatchNorm2d

from diffusion_policy.model.vision.group_norm import replace_batch_norm
from diffusion_policy.model.vision.keypoint_cnn import KeypointCNN
from diffusion_policy.model.vision.plain_cnn import PlainCNN
from diffusion_policy.model.vision.resnet import RESNETS, build_resnet
from diffusion_policy.util.errors import UserError, require
from diffusion_policy.util.output_dir import write_atomically
from diffusion_policy.util.weights_file import WEIGHTS_SUFFIX, read_weights, weights_bytes

_SMALL = {"keypoint_cnn": KeypointCNN, "cnn": PlainCNN}
BACKBONES = (*RESNETS, *_SMALL)


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
        name: ``resnet18``, ``resnet34``, ``resnet50``, ``keypoint_cnn`` or ``cnn``.
        weights: path of a ``.safetensors`` file of its state_dict, with or without ``fc``;
            ``IMAGENET1K_V1`` for a ResNet, see :func:`build_resnet`; None for random weights.
        norm_layer: of a ResNet; the keypoint CNN always has group norms, and ``cnn`` has none.
        group_norm: replace the batch norms of a ResNet by new group norms. A weights file must come
            from a network that already has group norms.

    Raises:
        UserError: ``name`` is unknown, ``weights`` do not exist, or they are of another network.
    """
    check_backbone(field, name)
    is_file = isinstance(weights, str) and weights.endswith(WEIGHTS_SUFFIX)
    file = weights if is_file else None
    named = weights if file is None else None
    known = (None, *get_model_weights(name).__members__) if name in RESNETS else (None,)
    choice = ", ".join((*known[1:], "null"))
    remedy = f"for {name} use {choice}, or a {WEIGHTS_SUFFIX} file"
    require(named in known, weights_field, named, remedy)
    backbone = build_resnet(name, named, norm_layer) if name in RESNETS else _SMALL[name]()
    if group_norm:
        replace_batch_norm(backbone)
    if file is not None:
        _load(backbone, Path(file), f"{weights_field} is {file!r}")
    return backbone


def check_backbone(field: str, name: str) -> None:
    """Refuse a backbone that does not exist; ``field`` is the setting that names it."""
    require(name in BACKBONES, field, name, f"use one of {', '.join(BACKBONES)}")


def save_backbone(backbone: nn.Module, path: Path, facts: Mapping[str, str]) -> None:
    """Write the weights below the last layer in the format that :func:`build_backbone` reads.

    Args:
        path: of the ``.safetensors`` file; an existing one is replaced.
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
            f"{setting}, which holds weights of another network; give weights of this backbone, "
            "with the same norms"
        )
    backbone.load_state_dict(weights, strict=False)


def _body(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights below the last layer, without counts of batches, which FrozenBatchNorm lacks."""
    return {
        key: value
        for key, value in weights.items()
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    }


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in weights.items()}
