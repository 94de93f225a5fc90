"""Weights of the public DOT checkpoints (LeRobot format, safetensors) as a policy of ours.

Their file holds the network under ``model.`` with the names that ours has too, and the
normalisation as buffers: ``normalize_inputs.buffer_<feature>.{min,max,mean,std}`` and
``unnormalize_outputs.buffer_action.{...}``, dots of a feature's name written as underscores.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from diffusion_policy.model.common.normalizer import SingleFieldLinearNormalizer
from diffusion_policy.policy.dot_policy import DOTPolicy
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.weights_file import read_weights

# Entries that our network computes from its settings.
_DERIVED = ("model.decoder_pos", "model.decoder_pos_inf", "model.mask")
_FEATURES = {"STATE": "observation_state", "ENV": "observation_environment_state"}


def load_dot_checkpoint(policy: DOTPolicy, path: str | Path) -> None:
    """Load a public DOT checkpoint into ``policy``, whose settings must be those of the file.

    Raises:
        UserError: the file cannot be read, or an entry has no place or another shape in the policy.
    """
    entries = read_weights(Path(path))
    network = {
        name.removeprefix("model."): value
        for name, value in entries.items()
        if name.startswith("model.") and name not in _DERIVED
    }
    _check_names(policy, network, path)
    policy.model.load_state_dict(network)

    _set_field(policy, "action", "unnormalize_outputs.buffer_action", entries, path)
    for modality, feature in _FEATURES.items():
        for key in policy.shape_meta.keys_of(modality):
            _set_field(policy, key, f"normalize_inputs.buffer_{feature}", entries, path)
    cameras = sorted(
        {
            name.removeprefix("normalize_inputs.buffer_").rpartition(".")[0]
            for name in entries
            if name.startswith("normalize_inputs.buffer_observation_image")
        }
    )
    if len(cameras) != len(policy.image_keys):
        raise UserError(
            f"{path} has {len(cameras)} cameras but shape_meta has {len(policy.image_keys)}; "
            "choose the config that the checkpoint was trained with"
        )
    for key, camera in zip(policy.image_keys, cameras, strict=True):
        _set_field(policy, key, f"normalize_inputs.buffer_{camera}", entries, path, image=True)


def _check_names(policy: DOTPolicy, network: dict[str, Tensor], path: str | Path) -> None:
    ours = {name: tuple(value.shape) for name, value in policy.model.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in network.items()}
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            raise UserError(
                f"{path}: model.{name} has shape {theirs.get(name, 'none')} in the file and "
                f"{ours.get(name, 'none')} in the policy; choose the config that the checkpoint "
                "was trained with"
            )


def _set_field(
    policy: DOTPolicy,
    key: str,
    buffer: str,
    entries: dict[str, Tensor],
    path: str | Path,
    image: bool = False,
) -> None:
    """Turn one of their statistics into our scale and offset."""
    found = {
        name: entries[f"{buffer}.{name}"].float()
        for name in ("min", "max", "mean", "std")
        if f"{buffer}.{name}" in entries
    }
    if not found:
        raise UserError(f"{path} has no normalisation {buffer}; it is not a DOT checkpoint")
    size = next(iter(found.values()))
    unknown = torch.full_like(size, float("nan"))
    statistics = {name: found.get(name, unknown) for name in ("min", "max", "mean", "std")}
    if "min" in found:
        scale = 2 / (found["max"] - found["min"])
        offset = -1 - scale * found["min"]
    else:
        scale, offset = 1 / found["std"], -found["mean"] / found["std"]
    if image:  # theirs are of pixels in [0, 1], ours of bytes
        scale = scale / 255
        statistics = {name: value * 255 for name, value in statistics.items()}
    policy.normalizer[key] = SingleFieldLinearNormalizer.create_manual(scale, offset, statistics)
