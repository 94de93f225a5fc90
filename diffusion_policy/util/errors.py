"""UserError, the error that a user can fix, and how the command-line tools report it."""

from __future__ import annotations

import errno
import functools
import os
import re
import signal
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

from diffusion_policy.util.meant import meant_or

P = ParamSpec("P")
R = TypeVar("R")

FULL_TRACEBACK = "FULL_TRACEBACK"
"""Environment variable that, set, shows the traceback of an error in the user's own code."""
_PACKAGE = Path(__file__).parents[1]
_python_format = warnings.formatwarning
_INSTALLED = tuple(
    sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")
)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNUSABLE = (
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
    *(errno.ENAMETOOLONG, errno.EIO, errno.ESTALE, errno.ENOTCONN),
)
"""What the system says of places that are full, or that nobody can write to or read from."""


class UserError(Exception):
    """An error that the user can fix; its one-line text names the cause, value and remedy."""


@contextmanager
def writing(path: str | os.PathLike[str], *, atomic: bool = False) -> Iterator[None]:
    """Tell the user why ``path`` cannot be written: a full disk, a quota, a missing permission.

    Args:
        atomic: the existing file survives a failure; the message then says so.

    Raises:
        UserError: in place of an OSError of the block.
    """
    kept = ""
    try:
        if atomic and Path(path).exists():
            kept = "; the previous one is kept"
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {os.fspath(path)}: {error.strerror or one_line(error)}{kept}; free "
            "space there or choose another place"
        ) from error


def require(condition: bool, field: str, value: object, remedy: str) -> None:
    """Raise a UserError about a setting unless ``condition`` holds.

    Args:
        field: full key of the setting, such as ``policy.alpha``.
        remedy: what to do instead, such as ``use 0..1``.

    Raises:
        UserError: ``<field> is <value>; <remedy>``.
    """
    if not condition:
        raise UserError(f"{field} is {value!r}; {remedy}")


def reports_user_errors(main: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command: errors that the user can fix print ``error: <one line>`` and exit with 1.

    These are :class:`UserError`, also when it is raised while Hydra instantiates an object,
    mistakes in the config, such as an argument that the configured class does not accept, a disk
    that is full or a file that cannot be used, and what code of the user's own raises, such as a
    policy. Every other exception is a bug and keeps its traceback. Ctrl-C exits with code 130 and
    no message.
    """

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        warnings.formatwarning = _format_warning
        try:
            return main(*args, **kwargs)
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
        except Exception as error:
            message = user_message(error)
            if message is None:
                raise
            fail(message)

    return wrapped


def fail(message: str) -> NoReturn:
    """Print ``error: <message>`` and exit with 1."""
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(1)


def _format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """One line for a warning of this package; others keep their place in the code."""
    if Path(filename).is_relative_to(_PACKAGE):
        return f"warning: {printable(' '.join(str(message).split()))}\n"
    return _python_format(message, category, filename, lineno, line)


def printable(message: str) -> str:
    """Without control characters: a name in a file must not move the cursor or set colours."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)


def user_message(error: BaseException) -> str | None:
    """Return the one-line message of an error that the user can fix, else None."""
    links = list(_chain(error))
    for link in links:
        if isinstance(link, UserError):
            return str(link)
    for link in links:
        if isinstance(link, OSError) and (message := _file_message(link)):
            return message
    for link in takewhile(_is_about_config, links):
        if message := _config_message(link):
            return message
    return _own_code_message(links[-1])


def _own_code_message(error: BaseException) -> str | None:
    """The message of an error that passed through code of the user's own, else None."""
    frame = _last_own_frame(error)
    if frame is None or os.environ.get(FULL_TRACEBACK):
        return None
    return (
        f"{type(error).__name__}: {one_line(error)} ({frame}, which is code of your own); "
        f"correct it there, or see the whole traceback with {FULL_TRACEBACK}=1"
    )


def _last_own_frame(error: BaseException) -> str | None:
    """File, line and function where the error last was in code of the user's own, if it was."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        is_ours = path.is_relative_to(_PACKAGE) or path.parent == _PACKAGE.parent  # train.py, ...
        if path.is_file() and not is_ours and not frame.filename.startswith(_INSTALLED):
            return f"{frame.filename}:{frame.lineno} in {frame.name}"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error, its cause, the cause of the cause, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


def _file_message(error: OSError) -> str | None:
    """The message of a file that cannot be made, read or written, else None."""
    if error.errno in _FULL:
        return (
            f"cannot write {error.filename or 'a file'}: {error.strerror}; free space, or choose "
            "another folder"
        )
    if error.errno in _UNUSABLE and error.filename is not None:
        return f"cannot use {error.filename}: {error.strerror}; choose another place"
    return None


def _is_about_config(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in ("hydra", "omegaconf")


def _config_message(error: BaseException) -> str | None:
    """Return a Hydra or OmegaConf error as one line with a remedy; None: look at its cause."""
    if type(error).__name__ == "InstantiationException" and error.__cause__ is not None:
        return _instantiation_message(str(error), error.__cause__)
    text = one_line(error)
    if match := re.search(r"Cannot find primary config '([^']+)'", text):
        from diffusion_policy.util.train_command import named_configs

        configs = named_configs()
        choices = f"choose one of {', '.join(configs)}"
        return f"there is no config {match[1]!r}; {meant_or(choices, match[1], configs)}"
    if match := re.search(r"'hydra/(launcher|sweeper)/((joblib|submitit|ray|optuna)\w*)'", text):
        kind, name, extra = match.groups()
        return (
            f"hydra/{kind}={name} is not installed; install its plugin with "
            f"pip install -e '.[{extra}]'"
        )
    choice = (
        r"Could not find '([^']+)/([^'/]+)' Available options in '[^']+': (.*?) Config search path"
    )
    if match := re.search(choice, text):
        group, name, known = match[1], match[2], match[3].split()
        choices = (
            f"choose one of {', '.join(known)}, or name the folder of your own with --config-dir"
        )
        return f"there is no {group} {name!r}; {meant_or(choices, name, known)}"
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{match[1]} has several values; add -m to run a sweep, or write a list as [1,2]"
    if match := re.search(r"Could not override '([^']+)'", text):
        remedy = (
            "the hydra.* keys depend on hydra/launcher and hydra/sweeper (docs/sweeps.md)"
            if match[1].startswith("hydra.")
            else "the keys are in diffusion_policy/config/"
        )
        return f"config key {match[1]} is unknown; {remedy}"
    return f"{text}; correct the config or the override"


def _instantiation_message(text: str, cause: BaseException) -> str | None:
    """Return why Hydra could not build the object that a config section describes."""
    section = re.search(r"\nfull_key: (\S+)$", text)
    if match := re.match(r"Error locating target '([^']+)'", text):
        where = f"{section[1]}._target_" if section else "_target_"
        return f"{where} is {match[1]!r}, which cannot be imported: {one_line(cause)}"
    # Objects not built from a config section are internal; let their errors propagate.
    if section is None or not isinstance(cause, TypeError | ValueError | ImportError):
        return None
    if match := re.search(r"unexpected keyword argument '(\w+)'", str(cause)):
        return f"unknown config key {section[1]}.{match[1]}; see the class that _target_ names"
    frame = _last_own_frame(cause)
    where = f" ({frame})" if frame else ""
    return (
        f"{section[1]} cannot be built: {type(cause).__name__}: {one_line(cause)}{where}; "
        "correct the config or the override"
    )


def one_line(error: BaseException) -> str:
    """What an error says, on one line; its type if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
