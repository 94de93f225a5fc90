"""Programs that tests start."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil


@contextmanager
def started(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen]:
    """A program at work; what is left of it, and of all that it started, ends with the block.

    Args:
        options: of :class:`subprocess.Popen`.
    """
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield process
    finally:
        left = _family(process.pid)  # torchrun starts its processes in sessions of their own
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for member in left:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _family(pid: int) -> list[psutil.Process]:
    """What a process has started, and what these have."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
