"""How the values of a task are normalised: from a spec, modes and data to a normaliser."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.model.common.normalizer import (
    LinearNormalizer,
    SingleFieldLinearNormalizer,
    scale_and_offset,
    statistics,
)
from diffusion_policy.model.vision.resnet import IMAGENET_MEAN, IMAGENET_STD
from diffusion_policy.spec.task_spec import NORMALIZATIONS, Field, Part, TaskSpec
from diffusion_policy.util.errors import UserError

_FITS = {"MIN_MAX": "limits", "MEAN_STD": "gaussian", "QUANTILE": "quantile"}


def fit_normalizer(
    spec: TaskSpec, modes: Mapping[str, str], values: Callable[[str], np.ndarray]
) -> LinearNormalizer:
    """Normaliser of every observation but texts, and of the action.

    Args:
        spec: what is observed and commanded.
        modes: by modality (VISUAL, DEPTH, STATE, ENV, ACTION), see :class:`Part`; MIN_MAX where
            one is missing. MIN_MAX maps the limits, or the data's range where a part has none, to
            [-1, 1], and images to [0, 1]; MEAN_STD of images is ImageNet's; QUANTILE maps the 1 %
            and 99 % quantiles to [-1, 1]; IDENTITY changes nothing.
        values: by key, all (n, *shape) values to fit on.

    Raises:
        UserError: a mode is unknown, or does not exist for images.
    """
    normalizer = LinearNormalizer()
    for key, field in spec.fields.items():
        if field.type == "rgb":
            normalizer[key] = image_normalizer(modes.get("VISUAL", "MIN_MAX"))
        elif field.type == "depth":
            normalizer[key] = _depth_normalizer(field, modes, values(key))
        elif field.type == "low_dim":
            normalizer[key] = _vector_normalizer(key, field, modes, values(key))
    return normalizer


def image_normalizer(mode: str) -> SingleFieldLinearNormalizer:
    """For (..., 3, H, W) raw 0..255: scale and offset of shape (3, 1, 1)."""
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    if mode == "MEAN_STD":
        scale, offset = 1 / (255 * std), -mean / std
    elif mode == "MIN_MAX":
        scale, offset = torch.full_like(std, 1 / 255), torch.zeros_like(std)
    elif mode == "IDENTITY":
        scale, offset = torch.ones_like(std), torch.zeros_like(std)
    else:
        known = [name for name in NORMALIZATIONS if name != "QUANTILE"]
        raise _unknown_mode("VISUAL", mode, known)
    stats = {
        "min": torch.zeros_like(mean),
        "max": torch.full_like(mean, 255),
        "mean": mean * 255,
        "std": std * 255,
    }
    return SingleFieldLinearNormalizer.create_manual(scale, offset, stats)


def _depth_normalizer(
    field: Field, modes: Mapping[str, str], images: np.ndarray
) -> SingleFieldLinearNormalizer:
    """For (..., 1, H, W) metres: one scale and one offset for all pixels."""
    stats = statistics(images.reshape(-1, 1))
    (part,) = Field((1,), modality=field.modality, limits=field.limits).normalized_parts(modes)
    scale, offset = _scale_and_offset(field.modality, part, stats)
    if part.normalization == "MIN_MAX":  # to [0, 1], like rgb
        scale, offset = scale / 2, (offset + 1) / 2
    of_pixels = {name: value.view(1, 1, 1) for name, value in stats.items()}
    return SingleFieldLinearNormalizer.create_manual(
        scale.view(1, 1, 1), offset.view(1, 1, 1), of_pixels
    )


def _vector_normalizer(
    key: str, field: Field, modes: Mapping[str, str], data: np.ndarray
) -> SingleFieldLinearNormalizer:
    """One scale and one offset per number, each part in its own mode."""
    stats = statistics(data.reshape(len(data), -1))
    fitted, start = [], 0
    for part in field.normalized_parts(modes):
        of_part = {name: value[start : start + part.size] for name, value in stats.items()}
        if part.limits is not None:
            _warn_outside(f"{key}.{part.name}" if field.parts else key, part, of_part)
        fitted.append(_scale_and_offset(field.modality, part, of_part))
        start += part.size
    scales, offsets = zip(*fitted, strict=True)
    return SingleFieldLinearNormalizer.create_manual(torch.cat(scales), torch.cat(offsets), stats)


def _warn_outside(name: str, part: Part, stats: Mapping[str, Tensor]) -> None:
    """Warn of data outside the limits: policies do not predict what lies there."""
    low, high = (torch.tensor(ends) for ends in zip(*_pairs(part), strict=True))
    slack = (high - low) / 20  # a controller overshoots a little
    if (stats["min"] < low - slack).any() or (stats["max"] > high + slack).any():
        found = f"{float(stats['min'].min()):.4g} to {float(stats['max'].max()):.4g}"
        warnings.warn(
            f"{name} has values from {found} in the training episodes, outside its limits "
            f"{list(part.limits or ())}; correct shape_meta",
            stacklevel=2,
        )


def _pairs(part: Part) -> Sequence[tuple[float, float]]:
    """(low, high) of each number of a part with limits."""
    limits: Any = part.limits
    return [limits] * part.size if isinstance(limits[0], int | float) else limits


def _scale_and_offset(
    modality: str, part: Part, stats: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    mode = part.normalization
    if mode == "IDENTITY":
        return torch.ones(part.size), torch.zeros(part.size)
    if mode not in _FITS:
        raise _unknown_mode(modality, mode, NORMALIZATIONS)
    if mode == "MIN_MAX" and part.limits is not None:
        scale = torch.tensor([2 / (high - low) for low, high in _pairs(part)])
        return scale, -1 - scale * torch.tensor([low for low, _ in _pairs(part)])
    return scale_and_offset(stats, _FITS[mode])


def _unknown_mode(modality: str, mode: str | None, known: Sequence[str]) -> UserError:
    return UserError(f"policy.normalization.{modality} is {mode!r}; use one of {', '.join(known)}")
