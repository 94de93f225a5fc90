"""Import an ACT policy of LeRobot: a folder of its settings, weights and normalisation.

==========================  =======================================================================
file                        holds
==========================  =======================================================================
``config.json``             settings and features
``model.safetensors``       the network under ``model.``, with the names of our network; and in
                            versions before 0.4 the statistics, as
                            ``normalize_inputs.buffer_<feature>.mean`` and ``.std``, and
                            ``unnormalize_outputs.buffer_action.*``, where dots in a feature's name
                            are underscores
``policy_preprocessor*``,   the statistics since 0.4, as ``<feature>.mean`` and ``.std``; a JSON
``policy_postprocessor*``   file names the file that holds them
==========================  =======================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from diffusion_policy.checkpoint.saved_policy import without_weights
from diffusion_policy.checkpoint.size_limit import SizeLimit
from diffusion_policy.interop.foreign_config import ForeignSection
from diffusion_policy.interop.imported_policy import ImportedPolicy, require_same_shapes, shapes
from diffusion_policy.model.common.normalizer import SingleFieldLinearNormalizer
from diffusion_policy.model.vision.resnet import RESNETS
from diffusion_policy.policy.build_policy import build_policy
from diffusion_policy.util.config import shown
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_file import read_json
from diffusion_policy.util.weights_file import read_weights

_REMEDY = "copy the whole folder that LeRobot's save_pretrained wrote"
_DERIVED = "vae_encoder_pos_enc"  # our network computes it
_STATISTICS = ("min", "max", "mean", "std")
_EPSILON = 1e-8  # what LeRobot's normaliser adds to a deviation, and takes for a range of 0
# Settings of the same name and meaning, and the types of their values.
_SETTINGS: dict[str, type | tuple[type, ...]] = {
    "chunk_size": int,
    "n_action_steps": int,
    "temporal_ensemble_coeff": (float, int, type(None)),
    "dim_model": int,
    "n_heads": int,
    "dim_feedforward": int,
    "n_encoder_layers": int,
    "n_decoder_layers": int,
    "n_vae_encoder_layers": int,
    "latent_dim": int,
    "use_vae": bool,
    "pre_norm": bool,
    "dropout": (float, int),
    "kl_weight": (float, int),
}
# Entries that say nothing about the policy itself.
_OTHERS = (
    "device",
    "use_amp",
    "use_peft",
    "push_to_hub",
    "repo_id",
    "private",
    "tags",
    "license",
    "pretrained_path",
    "pretrained_backbone_weights",
    "optimizer_lr",
    "optimizer_weight_decay",
    "optimizer_lr_backbone",
)


def import_act(source: Path) -> ImportedPolicy:
    """The policy of a folder; its observations bear the names of LeRobot's features.

    Raises:
        UserError: a file is missing or damaged, or a setting has no counterpart here.
    """
    weights = read_weights(source / "model.safetensors")
    theirs = ForeignSection("config", read_json(source / "config.json", dict, _REMEDY))
    cfg, modes = _our_config(theirs)
    network = {
        name.removeprefix("model."): value
        for name, value in weights.items()
        if name.startswith("model.") and not name.endswith(_DERIVED)
    }
    with SizeLimit(source, cfg, network):
        policy: Any = build_policy(cfg.policy, None)
    require_same_shapes(shapes(network), shapes(policy.model.state_dict()), str(source), _REMEDY)
    policy.model.load_state_dict(network)
    statistics = _statistics(source, weights)
    for key, field in policy.shape_meta.fields.items():
        mode = modes.get(field.modality, "IDENTITY")
        # Older files have underscores where a name has dots.
        found = statistics.get(key) or statistics.get(key.replace(".", "_"), {})
        policy.normalizer[key] = _normalizer(key, field.shape, field.type == "rgb", mode, found)
    return ImportedPolicy(cfg, policy)


def _our_config(theirs: ForeignSection) -> tuple[DictConfig, dict[str, str]]:
    """A config with their policy and no runner, and the normalisation mode of each modality."""
    theirs.take_one_of("type", ("act",), None)
    theirs.take_one_of("n_obs_steps", (1,), 1)
    theirs.take_one_of("replace_final_stride_with_dilation", (False, 0), False)
    shape_meta = _shape_meta(theirs)
    settings: dict[str, Any] = {name: theirs.take(name, kinds) for name, kinds in _SETTINGS.items()}
    settings["backbone"] = theirs.take_one_of("vision_backbone", RESNETS, None)
    settings["feedforward_activation"] = theirs.take_one_of(
        "feedforward_activation", ("relu", "gelu"), "relu"
    )
    mapping = theirs.section("normalization_mapping")
    modes = {
        name: mapping.take_one_of(name, ("MEAN_STD", "MIN_MAX", "IDENTITY"), "IDENTITY")
        for name in ("VISUAL", "STATE", "ENV", "ACTION")
    }
    mapping.finish()
    theirs.drop(*_OTHERS)
    theirs.finish()
    with hydra.initialize_config_module("diffusion_policy.config", version_base="1.3"):
        cfg = without_weights(hydra.compose("train", overrides=["policy=act"]))
    cfg.policy.merge_with({**settings, "normalization": modes})
    OmegaConf.set_struct(cfg, False)
    cfg.name = "lerobot_act"
    cfg.task = {"name": "lerobot_act", "shape_meta": shape_meta, "transforms": []}
    return cfg, modes


def _shape_meta(theirs: ForeignSection) -> dict[str, Any]:
    """Their features as a shape_meta; each keeps its name."""
    kinds = {"STATE": {}, "ENV": {"modality": "ENV"}, "VISUAL": {"type": "rgb"}, "ACTION": {}}
    fields: dict[str, dict[str, dict[str, Any]]] = {}
    for section in ("input_features", "output_features"):
        features = theirs.section(section)
        fields[section] = {}
        for key in list(features.entries):
            feature = features.section(key)
            kind = feature.take_one_of("type", tuple(kinds), None)
            fields[section][key] = {"shape": feature.take_sizes("shape", []), **kinds[kind]}
            feature.finish()
    actions = fields["output_features"]
    if list(actions) != ["action"]:
        theirs.refuse("output_features", actions, "only the one feature action can be imported")
    return {"obs": fields["input_features"], "action": actions["action"]}


def _statistics(source: Path, weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """By feature and name of the statistic, from either of the two places."""
    found: dict[str, dict[str, Tensor]] = {}
    processors = [source / f"policy_{name}processor.json" for name in ("pre", "post")]
    if any(path.is_file() for path in processors):
        for path in processors:
            for name, value in _of_processor(path).items():
                feature, _, statistic = name.rpartition(".")
                found.setdefault(feature, {})[statistic] = value
        return found
    for name, value in weights.items():
        prefix, _, statistic = name.rpartition(".")
        for group in ("normalize_inputs.buffer_", "unnormalize_outputs.buffer_"):
            if prefix.startswith(group):
                found.setdefault(prefix.removeprefix(group), {})[statistic] = value
    return found


def _of_processor(path: Path) -> dict[str, Tensor]:
    """The statistics of the normaliser among the steps of a processor."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; {_REMEDY}")
    steps = read_json(path, {"steps": [{"registry_name": str, "state_file?": str}]}, _REMEDY)
    for step in steps["steps"]:
        file = step.get("state_file")
        if step["registry_name"].endswith("normalizer_processor") and file is not None:
            if Path(file).name != file:
                raise UserError(f"{path} names the file {shown(file)} elsewhere; {_REMEDY}")
            return read_weights(path.parent / file)
    return {}


def _normalizer(
    key: str, shape: tuple[int, ...], is_image: bool, mode: str, found: Mapping[str, Tensor]
) -> SingleFieldLinearNormalizer:
    """Ours of a feature, with LeRobot's arithmetic.

    Raises:
        UserError: statistics that the mode needs are missing, or of another shape.
    """
    size = (3, 1, 1) if is_image else shape
    ones, zeros = torch.ones(size), torch.zeros(size)
    needed = {"MEAN_STD": ("mean", "std"), "MIN_MAX": ("min", "max"), "IDENTITY": ()}[mode]
    for name in needed:
        if name not in found or tuple(found[name].shape) != size:
            raise UserError(
                f"the folder has no statistic {name} of {key} with shape {list(size)}; {_REMEDY}"
            )
    if mode == "MEAN_STD":
        scale = 1 / (found["std"].float() + _EPSILON)
        offset = -found["mean"].float() * scale
    elif mode == "MIN_MAX":
        span = found["max"].float() - found["min"].float()
        scale = 2 / torch.where(span == 0, _EPSILON, span)
        offset = -1 - found["min"].float() * scale
    else:
        scale, offset = ones, zeros
    known = {name: value.float() for name, value in found.items() if tuple(value.shape) == size}
    unknown = torch.full(size, torch.nan)
    statistics = {name: known.get(name, unknown) for name in _STATISTICS}
    if is_image:  # theirs are of pixels in [0, 1], ours of bytes
        scale = scale / 255
        statistics = {name: value * 255 for name, value in statistics.items()}
    return SingleFieldLinearNormalizer.create_manual(scale, offset, statistics)
