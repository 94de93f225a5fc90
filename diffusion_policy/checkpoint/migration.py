"""Configs and states that earlier versions wrote, in today's names.

Checkpoints, policy folders and run directories hold the config of their time. Whoever reads one
passes it through :func:`migrate_config` first, so that the rest of the package knows one form.
This module imports no torch.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from diffusion_policy.util.config_file import parse_config

# Classes that have moved, by their former full name.
_MOVED = {
    "diffusion_policy.dataset.replay_dataset.ReplayDataset": (
        "diffusion_policy.dataset.window_dataset.WindowDataset"
    ),
}

# Readers of early versions, and the stores that took their place.
_ARRAY_READER = "diffusion_policy.dataset.readers.ArrayReader"  # what a dataset does by itself
_STORES = {
    "diffusion_policy.dataset.pusht_reader.PushTReader": (
        "diffusion_policy.dataset.stores.pusht_store.PushTStore"
    ),
}

# How earlier versions read the rewards of PushT; tasks say so themselves now.
_PUSHT_ENVIRONMENTS = "diffusion_policy/PushT"
_PUSHT_OUTCOMES = {
    "reward_range": [0, 1],
    "failures": {
        "near miss": {"at_least": 0.95},
        "slow": {"last_part": 0.1},
        "lost": {"below": 0.8},
        "in between": {},
    },
}


def migrate_config(cfg: DictConfig) -> DictConfig:
    """A copy of a config of any earlier version, in the form of this one."""
    cfg = copy.deepcopy(cfg)
    _rename_classes(cfg)
    _replace_reader(cfg)
    _declare_outcomes(cfg)
    return cfg


def migrate_config_text(text: Any, source: object) -> str:
    """:func:`migrate_config` of a config as YAML, which then holds plain values alone.

    Args:
        text: as it came in a file.
        source: the file, for messages.

    Raises:
        UserError: see :func:`parse_config`.
    """
    return OmegaConf.to_yaml(migrate_config(parse_config(text, source)))


def _replace_reader(cfg: DictConfig) -> None:
    """``task.dataset.reader`` was what ``store`` and ``cache_dir`` are now."""
    dataset = OmegaConf.select(cfg, "task.dataset")
    if not OmegaConf.is_dict(dataset) or "reader" not in dataset:
        return
    target = OmegaConf.select(dataset, "reader._target_")
    if target not in (None, _ARRAY_READER, *_STORES):
        return  # of the user's own: the dataset refuses it, but the policy can act
    reader = dataset.reader or {}
    if not isinstance(reader, Mapping):
        return  # the dataset refuses it
    with open_dict(dataset):
        dataset.pop("reader")
        if target in _STORES:
            dataset.store = {"_target_": _STORES[target], "_partial_": True}
        if "cache_dir" in reader:
            dataset.cache_dir = reader["cache_dir"]


def _declare_outcomes(cfg: DictConfig) -> None:
    runner = OmegaConf.select(cfg, "task.env_runner")
    if not OmegaConf.is_dict(runner) or "outcomes" in runner:
        return
    if str(OmegaConf.select(runner, "env.id")).startswith(_PUSHT_ENVIRONMENTS):
        with open_dict(runner):
            runner.outcomes = _PUSHT_OUTCOMES


def _rename_classes(node: Any) -> None:
    if OmegaConf.is_dict(node):
        for key in list(node):
            if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
                continue
            if key == "_target_" and isinstance(node[key], str):
                node[key] = _MOVED.get(node[key], node[key])
            else:
                _rename_classes(node[key])
    elif OmegaConf.is_list(node):
        for item in node:
            _rename_classes(item)


def migrate_state(state: dict[str, Any]) -> dict[str, Any]:
    """A training state of any earlier version, in the form of this one."""
    if not {"loss_sum", "epoch_step"} <= state.keys():
        return state
    state = dict(state)
    sums, counts = {"train_loss": state.pop("loss_sum")}, {"train_loss": state["epoch_step"]}
    state["epoch_means"] = {"sums": sums, "counts": counts}
    state["interval"] = {"sums": {}, "counts": {}}
    return state
