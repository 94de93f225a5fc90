"""Weights of a published Diffusion Policy checkpoint in a policy of this project.

Names and shapes of the networks are the same, but for these:

=====================================  =====================================================
published                              ours
=====================================  =====================================================
obs_encoder.*                          obs_encoder.encoder.*
normalizer.params_dict.<rgb key>.*     shape (1,), pixels in [0, 1] to [-1, 1]; ours has shape
                                       (3, 1, 1), bytes to [0, 1], then the policy maps to [-1, 1]
_dummy_variable, empty                 only in the transformer
=====================================  =====================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

from diffusion_policy.interop.imported_policy import Shape, require_same_shapes, shapes
from diffusion_policy.policy.denoising_policy import DenoisingPolicy
from diffusion_policy.util.errors import UserError

_NORMALIZER = "normalizer.params_dict."
_STATISTICS = tuple(f"input_stats.{name}" for name in ("min", "max", "mean", "std"))


def load_published_weights(policy: DenoisingPolicy, state: Any) -> None:
    """Load a published state_dict into ``policy``, built with the settings of its config.

    Raises:
        UserError: an entry has no place or another shape in the policy, or one is missing.
    """
    if not isinstance(state, Mapping):
        raise UserError("the checkpoint holds no state_dict of a model, so it cannot be imported")
    expected = _published_shapes(policy)
    entries = _renamed(state, expected)
    require_same_shapes(
        shapes(entries),
        expected,
        "the checkpoint",
        "its network is not the one that its config describes, so it cannot be imported",
    )
    for key, field in policy.shape_meta.obs.items():
        if field.type == "rgb":
            _convert_image_normalizer(entries, key)
    policy.load_state_dict(entries)


def _renamed(state: Mapping[str, Any], expected: Mapping[str, Shape]) -> dict[str, Tensor]:
    """The entries under our names, without placeholders that we lack."""
    entries = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(f"the checkpoint's {name} is no tensor, so it cannot be imported")
        prefix, _, rest = name.partition(".")
        renamed = f"obs_encoder.encoder.{rest}" if prefix == "obs_encoder" else name
        is_placeholder = name.endswith("_dummy_variable") and value.numel() == 0
        if renamed in expected or not is_placeholder:
            entries[renamed] = value.detach()
    return entries


def _published_shapes(policy: DenoisingPolicy) -> dict[str, Shape]:
    """Shapes by our names of all that must be filled; normalisers as published."""
    expected = {
        name: shape
        for name, shape in shapes(policy.state_dict()).items()
        if not name.startswith(_NORMALIZER)
    }
    meta = policy.shape_meta
    for key, field in {**meta.obs, "action": meta.action}.items():
        shape = (1,) if field.type == "rgb" else (prod(field.shape),)
        names = ("scale", "offset", *_STATISTICS)
        expected |= {f"{_NORMALIZER}{key}.{name}": shape for name in names}
    return expected


def _convert_image_normalizer(entries: dict[str, Tensor], key: str) -> None:
    prefix = f"{_NORMALIZER}{key}."
    scale, offset = (float(entries[prefix + name]) for name in ("scale", "offset"))
    if (scale, offset) != (2.0, -1.0):
        raise UserError(
            f"the checkpoint normalises {key} by {scale:g} x + {offset:g}; "
            "only 2 x - 1, of pixels in [0, 1], can be imported"
        )
    entries[prefix + "scale"] = torch.full((3, 1, 1), 1 / 255)
    entries[prefix + "offset"] = torch.zeros(3, 1, 1)
    for name in _STATISTICS:
        entries[prefix + name] = (255 * entries[prefix + name].float()).expand(3, 1, 1).clone()
