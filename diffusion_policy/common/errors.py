"""The error that a user can mend, and how the command-line tools report it."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class UserError(Exception):
    """Something the user can mend; its one-line text names the cause, the value and the remedy."""


def reports_user_errors(main: Callable[P, R]) -> Callable[P, R]:
    """Let a command end with ``error: <one line>`` and exit code 1 on what the user can mend.

    That is a :class:`UserError`, also one raised while Hydra instantiates an object, and a
    mistake in the config. Every other exception keeps its traceback: that one is ours to mend.
    """

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return main(*args, **kwargs)
        except Exception as error:
            message = user_message(error)
            if message is None:
                raise
            print(f"error: {message}", file=sys.stderr)
            sys.exit(1)

    return wrapped


def user_message(error: BaseException) -> str | None:
    """One line for an error that the user can mend, None for any other."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__
    if type(error).__module__.partition(".")[0] in ("hydra", "omegaconf"):
        return _config_message(error)
    return None


def _config_message(error: BaseException) -> str | None:
    """What a Hydra or OmegaConf error says, in one line with a remedy."""
    text = " ".join(str(error).split())
    if match := re.search(r"Cannot find primary config '([^']+)'", text):
        return f"there is no config {match[1]!r}; choose one of {', '.join(_named_configs())}"
    if match := re.search(r"unexpected keyword argument '(\w+)'", text):
        section = re.search(r"full_key: (\S+)", text)
        where = f"{section[1]}." if section else ""
        return f"unknown config key {where}{match[1]}; see the class that _target_ names"
    if type(error).__name__ == "InstantiationException" and error.__cause__ is not None:
        return None
    return f"{text}; correct the config or the override"


def _named_configs() -> list[str]:
    from importlib.resources import files

    configs = files("diffusion_policy") / "config"
    names = (entry.name for entry in configs.iterdir())
    return sorted(name[:-5] for name in names if name.startswith("train_"))
