"""One process an output directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from diffusion_policy.common.errors import UserError


class OutputLock:
    """Holds an output directory for this process; a context manager.

    The kernel releases the lock when the process ends, however it ends.

    Raises:
        UserError: on entry, when another process holds it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __enter__(self) -> OutputLock:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._file = (self.directory / ".lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise UserError(
                f"output directory {self.directory} is in use by process {holder}; "
                "wait for it or set another hydra.run.dir"
            ) from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
