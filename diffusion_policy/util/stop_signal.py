"""Treat SIGINT and SIGTERM as a request to stop at the next safe point, once."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NOTICE = "\n{}: saving and stopping after this step or rollout; send it again to end at once\n"


class Stopped(SystemExit):
    """Raised at the safe point; the exit code is 128 + the signal number, as shells expect."""


class StopSignal:
    """While open, the first signal sets ``received`` and says so; a second one ends the process.

    Args:
        patient: ignore later signals, too. A launcher repeats the signal that the terminal already
            sent, and kills the process itself after a grace period.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.patient = patient
        self.received: signal.Signals | None = None

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if not self.patient:
            self._restore()
        if not self.patient and os.getpid() == self._pid:
            # os.write, since print may be what the signal has interrupted.
            with suppress(OSError):
                os.write(2, _NOTICE.format(self.received.name).encode())

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __enter__(self) -> StopSignal:
        self._pid = os.getpid()  # forked processes inherit the handlers
        self._previous = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
