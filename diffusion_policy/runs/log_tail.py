"""Read the log of a run while it grows, each line once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from diffusion_policy.util.json_logger import parse_line


class LogTail:
    """The records of a ``logs.json.txt`` that hold one of ``keys``; :meth:`refresh` adds new ones.

    A log has a line a step, up to millions, of which few hold a score. The others are passed over
    without being parsed.

    A resumed run replaces its log by the part it goes on from, which may be shorter. The last line
    read is then no longer where it was, and reading begins anew.

    Attributes:
        records: those found so far, in the order of the log.
        last: the last record of the log, whatever it holds; None while there is none.
    """

    def __init__(self, path: Path, keys: Sequence[str]) -> None:
        self.path = path
        self._needles = [json.dumps(key).encode() for key in keys]
        self._forget()

    def _forget(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.last: dict[str, Any] | None = None
        self._offset = 0
        self._last_line = b""

    def refresh(self) -> None:
        """Read what was written since; a line without its end is left for the next time."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            self._forget()
            return
        with file:
            if not self._is_where_it_was(file):
                self._forget()
                file.seek(0)
            self._read_on(file)

    def _is_where_it_was(self, file: BinaryIO) -> bool:
        file.seek(self._offset - len(self._last_line))
        return file.read(len(self._last_line)) == self._last_line

    def _read_on(self, file: BinaryIO) -> None:
        before = self._offset
        for line in file:
            if not line.endswith(b"\n"):
                break
            self._offset += len(line)
            self._last_line = line
            if any(needle in line for needle in self._needles):
                record = parse_line(line)
                if record is not None:
                    self.records.append(record)
        if self._offset > before:
            self.last = parse_line(self._last_line) or self.last
