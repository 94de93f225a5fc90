"""The keys of a config: nothing may stand there that nothing reads."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_policy.checkpoint.topk import TopKCheckpoints
from diffusion_policy.util.config import arguments_of, class_sections, plain, require_known
from diffusion_policy.util.errors import UserError
from diffusion_policy.workspace.loader import LoaderConfig
from diffusion_policy.workspace.loggers import LOGGING_KEYS

_SECTIONS: dict[str, tuple[str, ...]] = {
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
    "task": ("name", "fps", "embodiment", "shape_meta", "transforms", "dataset", "env_runner"),
    "checkpoint": ("topk",),
    "checkpoint.topk": tuple(inspect.signature(TopKCheckpoints).parameters)[1:],
    "logging": LOGGING_KEYS,
}
_BUILT = ("policy", "optimizer", "ema", "task.dataset", "task.env_runner", "task.transforms")
"""Sections that hold the arguments of a class, and of classes further inside."""


def check_known_keys(cfg: DictConfig) -> None:
    """Check the keys of every section.

    Raises:
        UserError: a key is unknown, a section missing, or a loader's number out of range.
    """
    for section, known in _SECTIONS.items():
        require_known(section, _section(cfg, section), known)
    for section in ("dataloader", "val_dataloader"):
        LoaderConfig.parse(section, _section(cfg, section))
    for section in _BUILT:
        content = plain(OmegaConf.select(cfg, section))
        for key, arguments in class_sections(content or {}, section):
            taken = arguments_of(arguments["_target_"])
            if taken is not None:
                require_known(key, [name for name in arguments if name[0] != "_"], taken)


def _section(cfg: DictConfig, section: str) -> Mapping[str, Any]:
    content = OmegaConf.select(cfg, section) if section else cfg
    if not isinstance(content, Mapping):
        raise UserError(
            f"config section {section} is {content}; give it the keys of "
            "diffusion_policy/config/train.yaml"
        )
    return content
