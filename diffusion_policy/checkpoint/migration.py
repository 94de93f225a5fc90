"""Configs that earlier versions wrote, in today's names.

Checkpoints, policy folders and run directories hold the config of their time. Whoever reads one
passes it through :func:`migrate_config` first, so that the rest of the package knows one form.
This module imports no torch.
"""

from __future__ import annotations

import copy
from typing import Any

from omegaconf import DictConfig, OmegaConf

# Classes that have moved, by their former full name.
_MOVED = {
    "diffusion_policy.dataset.replay_dataset.ReplayDataset": (
        "diffusion_policy.dataset.window_dataset.WindowDataset"
    ),
}


def migrate_config(cfg: DictConfig) -> DictConfig:
    """A copy of a config of any earlier version, in the form of this one."""
    cfg = copy.deepcopy(cfg)
    _rename_classes(cfg)
    return cfg


def _rename_classes(node: Any) -> None:
    if OmegaConf.is_dict(node):
        for key in list(node):
            if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
                continue
            if key == "_target_":
                node[key] = _MOVED.get(node[key], node[key])
            else:
                _rename_classes(node[key])
    elif OmegaConf.is_list(node):
        for item in node:
            _rename_classes(item)
