"""Configs as plain data: nested, or as one flat table to compare with another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_policy.util.errors import UserError


def config_leaves(cfg: DictConfig) -> dict[str, Any]:
    """Every value that is no section, resolved, by its full key; a list is one value."""

    def walk(node: Any, prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in node.items():
            key = f"{prefix}{name}"
            found |= walk(value, f"{key}.") if isinstance(value, dict) and value else {key: value}
        return found

    # By way of text, as a saved one went.
    return walk(OmegaConf.to_container(OmegaConf.create(OmegaConf.to_yaml(cfg, resolve=True))), "")


def plain(value: Any) -> Any:
    """A copy of a configuration in dicts, lists and scalars (Hydra hands over its own classes)."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return value


def require_known(section: str, content: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse keys that nothing reads: a misspelt one would leave its setting at the default.

    Args:
        section: full key of ``content``; empty for the whole config.

    Raises:
        UserError: names the key and those that are known.
    """
    for key in content:
        if key not in known:
            name = f"{section}.{key}" if section else key
            raise UserError(f"config key {name} is unknown; known keys are {', '.join(known)}")
