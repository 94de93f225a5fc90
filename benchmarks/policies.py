"""Policies of the named configs, with data for them."""

from __future__ import annotations

from typing import NamedTuple

import hydra
import numpy as np
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from benchmarks.case import Options
from benchmarks.demonstrations import demonstrations
from diffusion_policy.dataset.batch_order import BatchIndex
from diffusion_policy.dataset.window_dataset import WindowDataset
from diffusion_policy.policy.base_policy import BasePolicy, Batch

UNET = "train_diffusion_unet_pusht"
SMALL_UNET = "train_diffusion_unet_small_pusht"
TRANSFORMER = "train_diffusion_transformer_pusht"
DOT = "train_dot_pusht"
_TINY = {
    UNET: ["policy.down_dims=[16,32]", "policy.diffusion_step_embed_dim=16"],
    SMALL_UNET: ["policy.down_dims=[16,32]", "policy.diffusion_step_embed_dim=16"],
    TRANSFORMER: ["policy.n_layer=2", "policy.n_emb=16"],
    DOT: ["policy.dim=16", "policy.n_heads=2", "policy.dim_feedforward=32", "policy.n_layers=2"],
}


class Learner(NamedTuple):
    """A policy with random weights, its config and its demonstrations."""

    policy: BasePolicy
    config: DictConfig
    dataset: WindowDataset

    def batch(self, size: int) -> Batch:
        """Return a random training batch of ``size`` rows."""
        samples = np.random.default_rng(0).integers(len(self.dataset), size=size)
        return self.dataset.__getitems__(BatchIndex(samples, 0))


def learner(options: Options, config_name: str, *overrides: str) -> Learner:
    """Build the untrained policy of ``train.py --config-name=<config_name> <overrides>``."""
    changes = [
        *(_TINY[config_name] if options.tiny else []),
        f"task.dataset.path={demonstrations(options)}",
        f"task.dataset.cache_dir={options.scratch / 'cache'}",
        *overrides,
    ]
    with initialize_config_module("diffusion_policy.config", version_base="1.3"):
        config = compose(config_name, overrides=changes)
    policy = hydra.utils.instantiate(config.policy)
    dataset = hydra.utils.instantiate(
        config.task.dataset,
        shape_meta=policy.shape_meta,
        window=policy.window,
        seed=0,
        _convert_="object",
    )
    policy.set_normalizer(dataset.get_normalizer(policy.normalization))
    return Learner(policy, config, dataset)
