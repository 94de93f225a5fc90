"""The output directory of a run: one process at a time, and files written whole or not at all."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from diffusion_policy.util.atomic_file import replacing
from diffusion_policy.util.errors import UserError, writing

_GLANCE_S = 0.05  # another process's is_held() holds the lock for less than this


@contextmanager
def dispensable(what: str) -> Iterator[None]:
    """Tell a :class:`UserError` of the block, which makes a by-product, and go on without it.

    Args:
        what: the by-product, for the message.
    """
    try:
        yield
    except UserError as error:
        print(f"warning   no {what}: {error}", flush=True)


@contextmanager
def opened_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write; readers see either the old or the new contents, even after a crash.

    Raises:
        UserError: the file cannot be written (disk full, no permission); the old file stays.
    """
    with writing(path, atomic=True), replacing(path) as partial, partial.open("wb") as file:
        yield file


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write contents that are in memory as :func:`opened_atomically` does."""
    with opened_atomically(path) as file:
        file.write(data)


class OutputLock:
    """Lock an output directory for this process; a context manager.

    The kernel releases the lock when the process ends, even if it is killed.

    Raises:
        UserError: on entry, if another process holds the lock, or the lock file cannot be written
            or locked.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / ".lock"

    def __enter__(self) -> OutputLock:
        with writing(self.path):
            self.directory.mkdir(parents=True, exist_ok=True)
            # The lock of a folder from elsewhere may be a link to a file that matters.
            self._file = open(self.path, "ab+", buffering=0, opener=_without_links)
        try:
            self._take()
        except BaseException:
            self._file.close()
            raise
        return self

    def _take(self) -> None:
        try:
            self._lock()
        except (BlockingIOError, PermissionError):
            self._file.seek(0)
            holder = self._file.read().decode(errors="replace").strip() or "unknown"
            raise UserError(
                f"output directory {self.directory} is in use by process {holder}; "
                "wait for it or choose another output directory"
            ) from None
        except OSError as error:
            raise UserError(
                f"cannot lock {self.path}: {error.strerror or error}; choose an output directory "
                "on a file system with locks"
            ) from error
        with writing(self.path):
            self._file.truncate(0)
            self._file.write(str(os.getpid()).encode())

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_GLANCE_S)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def is_held(directory: Path) -> bool:
    """Return whether a process holds the output directory, so a run is active there.

    Return False where the lock cannot be read (no permission, no file locks).
    """
    try:
        with (directory / ".lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
