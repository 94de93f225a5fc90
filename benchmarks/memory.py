"""Read the memory of processes from Linux."""

from __future__ import annotations

from pathlib import Path


def resident_mb(pid: int | str = "self", entry: str = "VmRSS") -> float:
    """Return the resident memory of a process in MB; entry RssAnon excludes mapped files."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(f"{entry}:"))
    return int(line.split()[1]) * 1024 / 1e6
