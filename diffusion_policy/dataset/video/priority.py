"""The priority of this process, which an encoder would raise."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_THREADS = Path("/proc/self/task")


def keeper() -> Callable[[], None]:
    """What gives the calling thread its present priority back, and also all threads begun since.

    SVT-AV1 makes its threads and the one that starts it real-time threads when root runs it. They
    come before everything else on the machine, and programs that are started later inherit that.
    """
    if sys.platform != "linux" or not _THREADS.is_dir():
        return lambda: None
    caller = str(threading.get_native_id())
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    others = {thread.name for thread in _THREADS.iterdir()} - {caller}

    def give_back() -> None:
        for thread in _THREADS.iterdir():
            if thread.name not in others:
                with suppress(OSError):  # it has ended
                    os.sched_setscheduler(int(thread.name), policy, parameters)

    return give_back
