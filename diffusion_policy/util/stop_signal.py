"""Treat SIGINT and SIGTERM as a request to stop at the next safe point."""

from __future__ import annotations

import signal
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(SystemExit):
    """Raised at the safe point; the exit code is 128 + the signal number, as shells expect."""


class StopSignal:
    """While open, the first signal only sets ``received``; a second one acts as usual.

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

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __enter__(self) -> StopSignal:
        self._previous = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
