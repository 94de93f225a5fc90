"""Compose configs as train.py does, with small settings that run in a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_module
from omegaconf import DictConfig

TINY_DOT = [
    "policy.dim=16",
    "policy.n_heads=2",
    "policy.dim_feedforward=32",
    "policy.n_layers=2",
]
TINY_ACT = [
    "policy.dim_model=16",
    "policy.n_heads=2",
    "policy.dim_feedforward=32",
    "policy.chunk_size=6",
    "policy.backbone_weights=null",
]
TINY_BC = ["policy.head_sizes=[16]", "policy.gru_hidden=8"]
NO_WEIGHTS = ["policy.backbone_weights=null", "policy.lora_rank=2"]
_TINY_NOISE = ["policy.noise_scheduler.num_inference_steps=3"]
_TINY = {  # the first whose name the config's begins with
    "train_dot_pusht_image_human": TINY_DOT,
    "train_dot": [*TINY_DOT, *NO_WEIGHTS],
    "train_diffusion_unet": [
        *_TINY_NOISE,
        "policy.diffusion_step_embed_dim=16",
        "policy.down_dims=[16,32]",
    ],
    "train_bc": TINY_BC,
    "train_act_seed": [*TINY_ACT, "policy.head_sizes=[16]", "policy.n_encoder_layers=1"],
    "train_act": TINY_ACT,
    "train_diffusion_transformer": [*_TINY_NOISE, "policy.n_layer=2", "policy.n_emb=16"],
}


def tiny_policy(config_name: str) -> list[str]:
    """Return overrides that make the config's policy run in milliseconds."""
    return next(tiny for prefix, tiny in _TINY.items() if config_name.startswith(prefix))


def compose_config(name: str, *overrides: str) -> DictConfig:
    """Compose the named config with overrides."""
    with initialize_config_module("diffusion_policy.config", version_base="1.3"):
        return compose(name, overrides=list(overrides))


def tiny_overrides(demos: Path, cache: Path, policy: Sequence[str] = tuple(TINY_DOT)) -> list[str]:
    """Return overrides for three short epochs of a tiny policy with one short rollout."""
    return [
        *policy,
        f"task.dataset.path={demos}",
        f"task.dataset.cache_dir={cache}",
        "task.env_runner.n_train=1",
        "task.env_runner.n_train_vis=0",
        "task.env_runner.n_test=2",
        "task.env_runner.n_test_vis=1",
        "task.env_runner.max_steps=5",
        "task.env_runner.n_workers=1",
        "dataloader.batch_size=16",
        "training.device=cpu",
        "training.precision=fp32",
        "training.num_epochs=3",
        "training.max_train_steps=4",
        "training.rollout_every=3",
        "training.lr_warmup_steps=2",
        "training.num_threads=1",
    ]
