"""The error that a user can mend, and how the command-line tools report it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class UserError(Exception):
    """Something the user can mend; its one-line text names the cause, the value and the remedy."""


def reports_user_errors(main: Callable[P, R]) -> Callable[P, R]:
    """Let a command end with ``error: <one line>`` and exit code 1 on a :class:`UserError`.

    Every other exception keeps its traceback: that one is ours to mend.
    """

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)

    return wrapped
