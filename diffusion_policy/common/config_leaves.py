"""A config as one flat table, to compare with another one."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf


def config_leaves(cfg: DictConfig) -> dict[str, Any]:
    """Every value that is no section, resolved, by its full key; a list is one value."""

    def walk(node: dict[str, Any], prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in node.items():
            key = f"{prefix}{name}"
            found |= walk(value, f"{key}.") if isinstance(value, dict) and value else {key: value}
        return found

    # By way of text, as a saved one went.
    return walk(OmegaConf.to_container(OmegaConf.create(OmegaConf.to_yaml(cfg, resolve=True))), "")
