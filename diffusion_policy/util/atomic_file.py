"""Write a file or a folder so that a reader never sees half of it."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from diffusion_policy.util.errors import UserError

ASIDE = ".old"
"""End of the name of a folder whose replacement has not yet taken its place."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; rename it to ``path`` when the block succeeds.

    The block may create a file or a folder. Its contents are synced to disk before the rename, so
    neither a crash nor a power cut leaves a torn ``path``. When the block raises, the temporary
    is removed and ``path`` is unchanged.

    A file replaces a file in one step. A folder cannot, so the old folder moves to
    :func:`set_aside_path` between the two renames.

    A killed writer leaves its temporary behind. The next writer of ``path`` on the same host
    removes it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    put_back(path)
    remove_abandoned(path)
    before, after = _around_process_id(path)
    temporary = path.with_name(f"{before}{os.getpid()}{after}")
    remove(temporary)
    try:
        yield temporary
        sync_tree(temporary)
        if path.is_dir():
            aside = set_aside_path(path)
            remove(aside)
            path.rename(aside)
            temporary.rename(path)
            remove(aside)
        else:
            temporary.replace(path)
    except BaseException:
        remove(temporary)
        raise
    sync(path.parent)


def set_aside_path(path: Path) -> Path:
    """Return where :func:`replacing` keeps the old folder while it renames the new one."""
    return path.with_name(f".{path.name}{ASIDE}")


def put_back(path: Path) -> None:
    """Give the old folder its name back if its replacement died between the two renames.

    Raises:
        UserError: the replacement may still go on, or the folder cannot be renamed.
    """
    aside = set_aside_path(path)
    if path.exists() or not aside.is_dir():
        return
    before, after = _around_process_id(path)
    host = f"{socket.gethostname()}."
    here = before.removesuffix(host)
    for found in path.parent.glob(f"{escape(here)}*{escape(after)}"):
        process = found.name.removeprefix(before).removesuffix(after)
        if not process.isdecimal() or _is_alive(int(process)):
            raise UserError(
                f"{path} is being replaced by another process, or was when that died on another "
                f"computer: wait, or rename {aside} to {path.name}"
            )
    try:
        aside.rename(path)
    except OSError as error:
        raise UserError(
            f"{path} was being replaced when its writer died: rename {aside} to {path.name} "
            f"({error.strerror})"
        ) from error


def remove(path: Path) -> None:
    """Remove a file or a folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _around_process_id(path: Path) -> tuple[str, str]:
    """Return the text before and after the process id in the names of temporaries of ``path``.

    The name holds the host, because several hosts may share the disk and each numbers its own
    processes. It keeps the suffix, because some writers read the format from it (.zip).
    """
    return f".{path.stem}.{socket.gethostname()}.", f".partial{path.suffix}"


def abandoned(path: Path) -> list[Path]:
    """The temporaries that dead writers of ``path`` on this host left."""
    before, after = _around_process_id(path)
    found = []
    for temporary in path.parent.glob(f"{escape(before)}*{escape(after)}"):
        process = temporary.name.removeprefix(before).removesuffix(after)
        if process.isdecimal() and not _is_alive(int(process)):
            found.append(temporary)
    return found


def remove_abandoned(path: Path) -> None:
    """Remove the :func:`abandoned` temporaries of ``path``; skip those that cannot be removed."""
    for temporary in abandoned(path):
        with suppress(OSError):
            remove(temporary)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it runs, as another user
    return True


def sync_tree(path: Path) -> None:
    """Have the disk hold a file, or a folder and everything in it."""
    for child in path.rglob("*"):
        sync(child)
    sync(path)


def sync(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
