"""Settings shared by all tests."""

from __future__ import annotations

import os
import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts jobs in the background with SIGINT ignored, and programs of tests inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before torch loads: tests share two cores between several processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
