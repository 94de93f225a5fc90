"""Import a public DOT checkpoint: the safetensors file that LeRobot's format holds.

The file has the network under ``model.``, with the names of our network, and the normalisation as
buffers: ``normalize_inputs.buffer_<feature>.{min,max,mean,std}`` and
``unnormalize_outputs.buffer_action.{...}``, where dots in a feature's name are underscores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import hydra
import torch
from torch import Tensor

from diffusion_policy.checkpoint.saved_policy import without_weights
from diffusion_policy.interop.imported_policy import ImportedPolicy, require_same_shapes, shapes
from diffusion_policy.model.common.normalizer import SingleFieldLinearNormalizer
from diffusion_policy.policy.dot_policy import DOTPolicy
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.weights_file import read_weights

# Entries that our network computes from its settings.
_DERIVED = ("model.decoder_pos", "model.decoder_pos_inf", "model.mask")
_FEATURES = {"STATE": "observation_state", "ENV": "observation_environment_state"}
_STATISTICS = ("min", "max", "mean", "std")
_INPUTS, _OUTPUTS = "normalize_inputs.buffer_", "unnormalize_outputs.buffer_"
_REMEDY = "choose the config that the checkpoint was trained with"


def import_dot(source: Path, config_name: str, overrides: Sequence[str] = ()) -> ImportedPolicy:
    """The policy of a checkpoint (.safetensors), which brings no config of its own.

    Args:
        config_name: config of this project with the settings that it was trained with.
        overrides: Hydra overrides of that config.

    Raises:
        UserError: as :func:`load_dot_checkpoint`.
    """
    with hydra.initialize_config_module("diffusion_policy.config", version_base="1.3"):
        cfg = without_weights(hydra.compose(config_name, overrides=list(overrides)))
    policy = hydra.utils.instantiate(cfg.policy)
    load_dot_checkpoint(policy, source)
    return ImportedPolicy(cfg, policy)


def load_dot_checkpoint(policy: DOTPolicy, path: str | Path) -> None:
    """Load a public DOT checkpoint into ``policy``, built with the settings of the file.

    Raises:
        UserError: the file cannot be read, or an entry has no place or another shape in the policy.
    """
    entries = read_weights(Path(path))
    network = {
        name: value
        for name, value in entries.items()
        if name.startswith("model.") and name not in _DERIVED
    }
    expected = {f"model.{name}": shape for name, shape in shapes(policy.model.state_dict()).items()}
    require_same_shapes(shapes(network), expected, str(path), _REMEDY)
    policy.model.load_state_dict({n.removeprefix("model."): v for n, v in network.items()})
    for key, buffer in _buffers(policy, entries, path).items():
        is_image = key in policy.image_keys
        policy.normalizer[key] = _normalizer(_statistics(entries, buffer, path), is_image)


def _buffers(policy: DOTPolicy, entries: Mapping[str, Tensor], path: str | Path) -> dict[str, str]:
    """Prefix of the statistics in the file, by key of the policy."""
    buffers = {"action": f"{_OUTPUTS}action"}
    for modality, feature in _FEATURES.items():
        buffers |= dict.fromkeys(policy.shape_meta.keys_of(modality), f"{_INPUTS}{feature}")
    images = f"{_INPUTS}observation_image"
    cameras = sorted({name.rpartition(".")[0] for name in entries if name.startswith(images)})
    if len(cameras) != len(policy.image_keys):
        raise UserError(
            f"{path} has {len(cameras)} cameras but shape_meta has {len(policy.image_keys)}; "
            f"{_REMEDY}"
        )
    return buffers | dict(zip(policy.image_keys, cameras, strict=True))


def _statistics(entries: Mapping[str, Tensor], buffer: str, path: str | Path) -> dict[str, Tensor]:
    found = {
        name: entries[f"{buffer}.{name}"].float()
        for name in _STATISTICS
        if f"{buffer}.{name}" in entries
    }
    if not found:
        raise UserError(
            f"{path} has no normalisation {buffer}, so it is not a DOT checkpoint; "
            "give the model.safetensors of one"
        )
    return found


def _normalizer(found: Mapping[str, Tensor], is_image: bool) -> SingleFieldLinearNormalizer:
    """Maps the range to [-1, 1] where the file has it, else to mean 0 and deviation 1."""
    if "min" in found:
        scale = 2 / (found["max"] - found["min"])
        offset = -1 - scale * found["min"]
    else:
        scale, offset = 1 / found["std"], -found["mean"] / found["std"]
    unknown = torch.full_like(scale, float("nan"))
    statistics = {name: found.get(name, unknown) for name in _STATISTICS}
    if is_image:  # the file's are of pixels in [0, 1], ours of bytes
        scale = scale / 255
        statistics = {name: value * 255 for name, value in statistics.items()}
    return SingleFieldLinearNormalizer.create_manual(scale, offset, statistics)
