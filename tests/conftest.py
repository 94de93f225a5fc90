"""Settings shared by all tests."""

from __future__ import annotations

import os

# Before torch loads: tests share two cores between several processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
