"""Weights of a published Diffusion Policy checkpoint in a policy of ours.

Names and shapes of their networks are ours, but for these:

=====================================  =====================================================
theirs                                 ours
=====================================  =====================================================
obs_encoder.*                          obs_encoder.encoder.*
normalizer.params_dict.<rgb key>.*     (1,), of pixels in [0, 1] to [-1, 1]; ours are (3, 1, 1),
                                       of bytes to [0, 1], and the policy goes on to [-1, 1]
_dummy_variable, empty                 in the transformer alone
=====================================  =====================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

from diffusion_policy.policy.denoising_policy import DenoisingPolicy
from diffusion_policy.util.errors import UserError

_NORMALIZER = "normalizer.params_dict."
_FIELD = ("scale", "offset", *(f"input_stats.{name}" for name in ("min", "max", "mean", "std")))
_REMEDY = "so it does not have the network that its config describes, and cannot be imported"


def load_published_weights(policy: DenoisingPolicy, state: Any) -> None:
    """Load their state_dict into ``policy``, built with the settings of their config.

    Raises:
        UserError: an entry has no place or another shape in the policy, or one is missing.
    """
    if not isinstance(state, Mapping):
        raise UserError("the checkpoint holds no state_dict of a model, so it cannot be imported")
    ours = _our_shapes(policy)
    entries = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(f"the checkpoint's {name} is no tensor, so it cannot be imported")
        renamed = _our_name(name)
        is_placeholder = name.endswith("_dummy_variable") and value.numel() == 0
        if renamed in ours or not is_placeholder:
            entries[renamed] = value.detach()
    for name in sorted(ours.keys() | entries.keys()):
        theirs = tuple(entries[name].shape) if name in entries else None
        if theirs != ours.get(name):
            raise UserError(
                f"the checkpoint's {name} has shape {_shown(theirs)} in the file and "
                f"{_shown(ours.get(name))} in the policy, {_REMEDY}"
            )
    for key, field in policy.shape_meta.obs.items():
        if field.type == "rgb":
            _convert_image_normalizer(entries, key)
    policy.load_state_dict(entries)


def _our_name(name: str) -> str:
    prefix, _, rest = name.partition(".")
    return f"obs_encoder.encoder.{rest}" if prefix == "obs_encoder" else name


def _our_shapes(policy: DenoisingPolicy) -> dict[str, tuple[int, ...]]:
    """Shape by name of all that must be filled; image normalisers as in their files."""
    shapes = {
        name: tuple(value.shape)
        for name, value in policy.state_dict().items()
        if not name.startswith(_NORMALIZER)
    }
    meta = policy.shape_meta
    for key, field in {**meta.obs, "action": meta.action}.items():
        shape = (1,) if field.type == "rgb" else (prod(field.shape),)
        shapes |= {f"{_NORMALIZER}{key}.{name}": shape for name in _FIELD}
    return shapes


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
    for name in _FIELD[2:]:
        entries[prefix + name] = (255 * entries[prefix + name].float()).expand(3, 1, 1).clone()


def _shown(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(shape)
