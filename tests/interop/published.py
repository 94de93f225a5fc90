"""Files like the published checkpoints: names, shapes and config of theirs, pickled with dill."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dill
import torch
from omegaconf import OmegaConf
from torch import Tensor

from tests.reference import reference_config, reference_weights

NETWORKS = {
    "unet_global": "conditional_unet1d/global_cond",
    "unet_local": "conditional_unet1d/local_cond",
    "transformer": "transformer_for_diffusion/decoder",
    "transformer_bert": "transformer_for_diffusion/bert",
}
_DDPM = {
    "_target_": "diffusers.schedulers.scheduling_ddpm.DDPMScheduler",
    "num_train_timesteps": 100,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "squaredcos_cap_v2",
    "variance_type": "fixed_small",
    "clip_sample": True,
    "prediction_type": "epsilon",
}


def low_dim_config(case: str) -> dict[str, Any]:
    """Their resolved config of a low-dim run with the network of that case."""
    unet = case.startswith("unet")
    family = "unet" if unet else "transformer"
    policy = {
        "_target_": f"diffusion_policy.policy.diffusion_{family}_lowdim_policy."
        f"Diffusion{family.capitalize()}LowdimPolicy",
        "model": {"_target_": "theirs", **reference_config(NETWORKS[case])},
        "noise_scheduler": dict(_DDPM),
        "horizon": 16 if unet or case == "transformer_bert" else 10,
        "obs_dim": 20,
        "action_dim": 2,
        "n_obs_steps": 2,
        "n_action_steps": 8,
        "num_inference_steps": 100,
        "pred_action_steps_only": False,
    }
    if unet:
        policy["obs_as_global_cond"] = case == "unet_global"
        policy["obs_as_local_cond"] = case == "unet_local"
        policy["oa_step_convention"] = True
    else:
        policy["obs_as_cond"] = case == "transformer"
    return {
        "name": "train",
        "n_latency_steps": 0,
        "past_action_visible": False,
        "keypoint_visible_rate": 1.0,
        "task": {"name": "pusht_lowdim"},
        "policy": policy,
    }


def hybrid_config() -> dict[str, Any]:
    """Their resolved config of a small image run with a U-Net."""
    return {
        "n_latency_steps": 0,
        "task": {"name": "pusht_image"},
        "policy": {
            "_target_": "diffusion_policy.policy.diffusion_unet_hybrid_image_policy."
            "DiffusionUnetHybridImagePolicy",
            "shape_meta": {
                "obs": {
                    "image": {"shape": [3, 96, 96], "type": "rgb"},
                    "agent_pos": {"shape": [2], "type": "low_dim"},
                },
                "action": {"shape": [2]},
            },
            "noise_scheduler": dict(_DDPM),
            "horizon": 16,
            "n_obs_steps": 2,
            "n_action_steps": 8,
            "num_inference_steps": 100,
            "obs_as_global_cond": True,
            "crop_shape": [84, 84],
            "diffusion_step_embed_dim": 16,
            "down_dims": [16, 32],
            "obs_encoder_group_norm": True,
            "eval_fixed_crop": True,
        },
    }


def field(key: str, size: int, scale: float, offset: float) -> dict[str, Tensor]:
    """Entries of one of their normalisers."""
    prefix = f"normalizer.params_dict.{key}"
    statistics = {"min": 0.0, "max": 1.0, "mean": 0.5, "std": 0.25}
    return {
        f"{prefix}.scale": torch.full((size,), scale),
        f"{prefix}.offset": torch.full((size,), offset),
        **{f"{prefix}.input_stats.{k}": torch.full((size,), v) for k, v in statistics.items()},
    }


def low_dim_state(case: str) -> dict[str, Tensor]:
    """Their state_dict of a low-dim policy with the reference's weights."""
    empty = torch.empty(0)
    return {
        "_dummy_variable": empty,
        "mask_generator._dummy_variable": empty,
        **{f"model.{name}": value for name, value in reference_weights(NETWORKS[case]).items()},
        **field("obs", 20, 1 / 256, -1),
        **field("action", 2, 1 / 256, -1),
    }


def write(
    path: Path, config: Mapping[str, Any], averaged: Mapping[str, Tensor], **more: Any
) -> Path:
    """A checkpoint file whose averaged weights are these, and whose last weights are zeros."""
    last = {name: torch.zeros_like(value) for name, value in averaged.items()}
    net = torch.nn.Linear(2, 2)
    payload = {
        "cfg": OmegaConf.create(copy.deepcopy(dict(config))),
        "state_dicts": {
            "model": OrderedDict(last),
            "ema_model": OrderedDict(averaged),
            "optimizer": torch.optim.AdamW(net.parameters()).state_dict(),
        },
        "pickles": {"epoch": dill.dumps(3)},
        **more,
    }
    with path.open("wb") as file:
        torch.save(payload, file, pickle_module=dill)
    return path
