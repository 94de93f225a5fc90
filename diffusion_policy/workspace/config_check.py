"""The keys of a config outside the sections that a class or ``training`` checks itself.

A misspelt key must not be ignored: the run would go on with the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_policy.util.errors import UserError

_LOADER = ("batch_size", "num_workers", "pin_memory", "persistent_workers", "prefetch_factor")
# What stands under logging.wandb are wandb.init's arguments, which it checks.
KNOWN_KEYS = {
    "": (
        "name",
        "workspace",
        "task",
        "policy",
        "training",
        "dataloader",
        "val_dataloader",
        "optimizer",
        "ema",
        "checkpoint",
        "logging",
    ),
    "workspace": ("_target_",),
    "task": ("name", "fps", "embodiment", "shape_meta", "dataset", "env_runner"),
    "dataloader": _LOADER,
    "val_dataloader": _LOADER,
    "checkpoint": ("topk",),
    "checkpoint.topk": ("monitor_key", "mode", "k", "format_str"),
    "logging": ("tensorboard", "wandb"),
}
_LEAST = {"batch_size": 1, "num_workers": 0, "prefetch_factor": 1}


def check_known_keys(cfg: DictConfig) -> None:
    """Check the keys of :data:`KNOWN_KEYS`' sections, and the loaders' numbers.

    Raises:
        UserError: a key is unknown, a section missing, or a number out of range.
    """
    for section, known in KNOWN_KEYS.items():
        content = _section(cfg, section)
        for key in content:
            if key not in known:
                raise UserError(
                    f"config key {f'{section}.{key}' if section else key} is unknown; "
                    f"known keys are {', '.join(known)}"
                )
    for section in ("dataloader", "val_dataloader"):
        _check_loader(section, cfg[section])


def _section(cfg: DictConfig, section: str) -> Mapping[str, Any]:
    content = OmegaConf.select(cfg, section) if section else cfg
    if not isinstance(content, Mapping):
        raise UserError(
            f"config section {section} is {content}; give it the keys of "
            "diffusion_policy/config/train.yaml"
        )
    return content


def _check_loader(section: str, loader: Mapping[str, Any]) -> None:
    if "batch_size" not in loader:
        raise UserError(f"{section}.batch_size is missing; use at least 1")
    for key, least in _LEAST.items():
        value = loader.get(key, least)
        if key == "prefetch_factor" and value is None:  # torch's choice
            continue
        if type(value) is not int or value < least:
            raise UserError(f"{section}.{key} is {value!r}; use a whole number, at least {least}")
