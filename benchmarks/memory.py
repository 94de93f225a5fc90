"""Memory of processes, as Linux counts it."""

from __future__ import annotations

from pathlib import Path


def resident_mb(pid: int | str = "self", entry: str = "VmRSS") -> float:
    """Megabytes of memory that a process holds: mapped files included, or without (RssAnon)."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(f"{entry}:"))
    return int(line.split()[1]) * 1024 / 1e6
