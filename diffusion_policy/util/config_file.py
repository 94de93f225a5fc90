"""Read a config that came in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from diffusion_policy.util.errors import UserError


def read_config(path: Path) -> DictConfig:
    """The config in a YAML file.

    Raises:
        UserError: it cannot be read, or holds no config.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from None
    return parse_config(text, path)


def parse_config(text: Any, source: object) -> DictConfig:
    """The config in a text that came in a file.

    Args:
        source: where the text stands, for messages.

    Raises:
        UserError: it cannot be read, or holds no config.
    """
    try:
        cfg = OmegaConf.create(text)
    except (YAMLError, OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        raise _damaged(source, error) from None
    if not isinstance(cfg, DictConfig):
        raise _damaged(source, TypeError("it holds no keys and values"))
    return cfg


def _damaged(source: object, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(f"{source} is damaged ({reason}); get the file again")
