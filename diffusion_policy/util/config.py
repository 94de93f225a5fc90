"""Convert configs to plain data: nested containers, or one flat table to compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_policy.util.errors import UserError


def config_leaves(cfg: DictConfig) -> dict[str, Any]:
    """Return the resolved values of a config by full key; a list counts as one value."""

    def walk(node: Any, prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in node.items():
            key = f"{prefix}{name}"
            found |= walk(value, f"{key}.") if isinstance(value, dict) and value else {key: value}
        return found

    # Through YAML text, as a saved config went, so that both have the same types.
    return walk(OmegaConf.to_container(OmegaConf.create(OmegaConf.to_yaml(cfg, resolve=True))), "")


def shown(value: Any) -> str:
    """Return a value as messages quote it: in plain lists and dicts, cut to 80 characters."""
    text = repr(plain(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def plain(value: Any) -> Any:
    """Copy a config into dicts, lists and scalars; Hydra passes its own container classes."""
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
