"""The config of a published Diffusion Policy checkpoint, translated into a config of this project.

Every entry of its policy section is either translated or refused. An overlooked entry would give a
policy that loads but acts differently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import hydra
from omegaconf import DictConfig

from diffusion_policy.interop.foreign_config import ForeignSection

_SAMPLERS = {"DDPMScheduler": "ddpm", "DDIMScheduler": "ddim"}
# Our process has these values always; their files may name them.
_FIXED_SCHEDULE = {
    "variance_type": "fixed_small",
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "thresholding": False,
    "trained_betas": None,
    "timestep_spacing": "leading",
    "clip_sample_range": 1.0,
    "rescale_betas_zero_snr": False,
}
# Settings outside their policy section that change what the policy must do.
_FIXED_RUN = {"n_latency_steps": 0, "past_action_visible": False, "keypoint_visible_rate": 1.0}
_PUSHT_OBS_DIM = 20  # 9 keypoints and the agent, x and y
_PUSHT_IMAGE_OBS = {"image": ([3, 96, 96], "rgb"), "agent_pos": ([2], "low_dim")}


def our_config(cfg: Any) -> tuple[DictConfig, list[str]]:
    """A config of this project with the policy of a published checkpoint, on PushT.

    Args:
        cfg: the config in the checkpoint, resolved, as dicts, lists and values.

    Returns:
        The config, and a remark on each point where our policy acts differently.

    Raises:
        UserError: names the setting that has no counterpart here.
    """
    top = ForeignSection("cfg", cfg)
    _check_run(top)
    section = top.section("policy")
    target = section.take("_target_", str).rpartition(".")[2]
    if target not in _READERS:
        section.refuse("_target_", target, f"only {', '.join(_READERS)} can be imported")
    config_name, task, read = _READERS[target]
    common = _common(section)
    settings, obs_keys, remarks = read(section)
    section.finish()
    hybrid = "obs_encoder" in settings
    overrides = [f"task={task}", *(["policy/obs_encoder=hybrid"] if hybrid else [])]
    with hydra.initialize_config_module("diffusion_policy.config", version_base="1.3"):
        ours = hydra.compose(config_name, overrides=overrides)
    ours.policy.merge_with({**common, **settings})
    obs = ours.task.shape_meta.obs
    # The order of the keys is the order of the concatenated features.
    ours.task.shape_meta.obs = {key: obs[key] for key in obs_keys}
    return ours, remarks


def _check_run(top: ForeignSection) -> None:
    task = top.entries.get("task")
    name = task.get("name") if isinstance(task, Mapping) else top.entries.get("task_name")
    if not str(name).startswith("pusht"):
        top.refuse("task.name", name, "only checkpoints of PushT can be imported")
    for key, value in _FIXED_RUN.items():
        top.take_one_of(key, (value,), value)


def _common(section: ForeignSection) -> dict[str, Any]:
    """The settings that all four policies have."""
    steps = section.take("num_inference_steps", (int, type(None)), None)
    return {
        "horizon": section.take("horizon", int),
        "n_obs_steps": section.take("n_obs_steps", int),
        "n_action_steps": section.take("n_action_steps", int),
        "noise_scheduler": _schedule(section.section("noise_scheduler"), steps),
    }


def _schedule(section: ForeignSection, num_inference_steps: int | None) -> dict[str, Any]:
    # An absent entry has the default of diffusers, which may differ from ours.
    target = section.take("_target_", str).rpartition(".")[2]
    if target not in _SAMPLERS:
        section.refuse("_target_", target, f"only {', '.join(_SAMPLERS)} can be imported")
    settings = {
        "sampler": _SAMPLERS[target],
        "num_train_timesteps": section.take("num_train_timesteps", int, 1000),
        "num_inference_steps": num_inference_steps,
        "beta_start": section.take("beta_start", (float, int), 0.0001),
        "beta_end": section.take("beta_end", (float, int), 0.02),
        "beta_schedule": section.take_one_of(
            "beta_schedule", ("linear", "scaled_linear", "squaredcos_cap_v2"), "linear"
        ),
        "prediction_type": section.take_one_of("prediction_type", ("epsilon", "sample"), "epsilon"),
        "clip_sample": section.take("clip_sample", bool, True),
    }
    for key, value in _FIXED_SCHEDULE.items():
        section.take_one_of(key, (value,), value)
    section.finish()
    return settings


_Reading = tuple[dict[str, Any], list[str], list[str]]
"""Settings of the policy, keys of its observations in order, remarks."""


def _unet_low_dim(section: ForeignSection) -> _Reading:
    _check_low_dim(section)
    if not section.take("oa_step_convention", bool, False):
        section.refuse(
            "oa_step_convention",
            False,
            "its actions start one step later than ours, so it cannot be imported",
        )
    is_local = section.take("obs_as_local_cond", bool, False)
    is_global = section.take("obs_as_global_cond", bool, False)
    model = section.section("model")
    settings = {
        "conditioning": "local" if is_local else "global" if is_global else "inpaint",
        "pred_action_steps_only": section.take("pred_action_steps_only", bool, False),
        **_unet(model, kernel_size=3, cond_predict_scale=False),
    }
    model.drop("_target_", "input_dim", "local_cond_dim", "global_cond_dim")
    model.finish()
    return settings, ["obs"], []


def _unet_hybrid(section: ForeignSection) -> _Reading:
    _check_global(section, "obs_as_global_cond")
    settings = _unet(section, kernel_size=5, cond_predict_scale=True)
    encoder, keys, remarks = _hybrid(section)
    return {**settings, "conditioning": "global", "obs_encoder": encoder}, keys, remarks


def _transformer_low_dim(section: ForeignSection) -> _Reading:
    _check_low_dim(section)
    is_global = section.take("obs_as_cond", bool, False)
    model = section.section("model")
    settings = {
        "conditioning": "global" if is_global else "inpaint",
        "pred_action_steps_only": section.take("pred_action_steps_only", bool, False),
        **_transformer(model, 12, 12, 768, 0.1, 0.1, causal_attn=False),
    }
    model.drop(
        "_target_", "input_dim", "output_dim", "horizon", "n_obs_steps", "cond_dim", "obs_as_cond"
    )
    model.finish()
    return settings, ["obs"], []


def _transformer_hybrid(section: ForeignSection) -> _Reading:
    _check_global(section, "obs_as_cond")
    settings = {
        "conditioning": "global",
        "pred_action_steps_only": section.take("pred_action_steps_only", bool, False),
        **_transformer(section, 8, 4, 256, 0.0, 0.3, causal_attn=True),
    }
    encoder, keys, remarks = _hybrid(section)
    return {**settings, "obs_encoder": encoder}, keys, remarks


def _unet(section: ForeignSection, *, kernel_size: int, cond_predict_scale: bool) -> dict[str, Any]:
    return {
        "diffusion_step_embed_dim": section.take("diffusion_step_embed_dim", int, 256),
        "down_dims": section.take_sizes("down_dims", [256, 512, 1024]),
        "kernel_size": section.take("kernel_size", int, kernel_size),
        "n_groups": section.take("n_groups", int, 8),
        "cond_predict_scale": section.take("cond_predict_scale", bool, cond_predict_scale),
    }


def _transformer(
    section: ForeignSection,
    n_layer: int,
    n_head: int,
    n_emb: int,
    p_drop_emb: float,
    p_drop_attn: float,
    *,
    causal_attn: bool,
) -> dict[str, Any]:
    return {
        "n_layer": section.take("n_layer", int, n_layer),
        "n_cond_layers": section.take("n_cond_layers", int, 0),
        "n_head": section.take("n_head", int, n_head),
        "n_emb": section.take("n_emb", int, n_emb),
        "p_drop_emb": section.take("p_drop_emb", (float, int), p_drop_emb),
        "p_drop_attn": section.take("p_drop_attn", (float, int), p_drop_attn),
        "causal_attn": section.take("causal_attn", bool, causal_attn),
        "time_as_cond": section.take("time_as_cond", bool, True),
    }


def _check_low_dim(section: ForeignSection) -> None:
    section.take_one_of("obs_dim", (_PUSHT_OBS_DIM,), None)
    section.take_one_of("action_dim", (2,), None)


def _check_global(section: ForeignSection, key: str) -> None:
    if not section.take(key, bool, True):
        section.refuse(key, False, "only features given as a condition can be imported")


def _hybrid(section: ForeignSection) -> tuple[dict[str, Any], list[str], list[str]]:
    """Settings of the encoder, keys of its observations in order, remarks."""
    obs = section.section("shape_meta").section("obs").entries
    found = {
        key: (entry.get("shape"), entry.get("type", "low_dim"))
        for key, entry in obs.items()
        if isinstance(entry, Mapping)
    }
    if found != _PUSHT_IMAGE_OBS:
        section.refuse("shape_meta.obs", obs, "PushT has image [3, 96, 96] and agent_pos [2]")
    crop = section.take("crop_shape", (list, type(None)), [76, 76])
    fixed_crop = section.take("eval_fixed_crop", bool, False)
    encoder = {"crop": crop, "group_norm": section.take("obs_encoder_group_norm", bool, False)}
    remarks = []
    if crop is not None and not fixed_crop:
        remarks.append(
            "cfg.policy.eval_fixed_crop is false: the published policy crops at random while it "
            "acts, ours crops from the centre"
        )
    return encoder, list(found), remarks


_READERS: dict[str, tuple[str, str, Callable[[ForeignSection], _Reading]]] = {
    "DiffusionUnetLowdimPolicy": ("train_diffusion_unet_pusht", "pusht_lowdim", _unet_low_dim),
    "DiffusionTransformerLowdimPolicy": (
        "train_diffusion_transformer_pusht",
        "pusht_lowdim",
        _transformer_low_dim,
    ),
    "DiffusionUnetHybridImagePolicy": (
        "train_diffusion_unet_pusht_image",
        "pusht_image",
        _unet_hybrid,
    ),
    "DiffusionTransformerHybridImagePolicy": (
        "train_diffusion_transformer_pusht_image",
        "pusht_image",
        _transformer_hybrid,
    ),
}
"""Class of the published policy -> our config, our task, and the reader of its settings."""
