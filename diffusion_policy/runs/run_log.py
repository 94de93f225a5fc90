"""Read the log of a run while it grows, each line once."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from diffusion_policy.util.json_logger import parse_line


class RunLog:
    """The numbers in a ``logs.json.txt``; :meth:`refresh` reads the lines that are new.

    A log has one line per training step, up to millions, and few of them hold a score. Lines that
    hold none of ``keys`` are skipped without parsing.

    A resumed run replaces its log by the part that it continues, which may be shorter. The last
    line read is then no longer at its place, and reading starts again from the beginning.

    Args:
        path: the file. It may be missing.
        keys: what to look for. A line that holds one of them is a row of the table.
        also: further columns of the table.

    Attributes:
        last: the last record of the log, whatever it holds. None if there is none.
        last_with: for each of ``keys`` the last record that holds it.
    """

    def __init__(self, path: Path, keys: Sequence[str], also: Sequence[str] = ()) -> None:
        self.path = path
        self._needles = {key: json.dumps(key).encode() for key in keys}
        self._names = list(dict.fromkeys(("global_step", *keys, *also)))
        self._forget()

    def _forget(self) -> None:
        self.last: dict[str, Any] | None = None
        self.last_with: dict[str, dict[str, Any]] = {}
        self._values = array("d")  # rows of the table, one after the other
        self._offset = 0
        self._last_line = b""

    def columns(self) -> Mapping[str, np.ndarray]:
        """The table: (N,) float64 for each name. Missing and non-finite values are NaN."""
        table = np.array(self._values).reshape(-1, len(self._names))
        return dict(zip(self._names, table.T, strict=True))

    def curve(self, key: str) -> np.ndarray:
        """Return (N, 2) float64: the optimiser step and the finite value of ``key``."""
        columns = self.columns()
        points = np.stack([columns["global_step"], columns[key]], axis=1)
        return points[np.isfinite(points).all(axis=1)]

    def refresh(self) -> None:
        """Read the new lines. A line without a line end is left for the next call."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            self._forget()
            return
        with file:
            if not self._is_unchanged(file):
                self._forget()
                file.seek(0)
            self._read_on(file)

    def _is_unchanged(self, file: BinaryIO) -> bool:
        file.seek(self._offset - len(self._last_line))
        return file.read(len(self._last_line)) == self._last_line

    def _read_on(self, file: BinaryIO) -> None:
        before = self._offset
        for line in file:
            if not line.endswith(b"\n"):
                break
            self._offset += len(line)
            self._last_line = line
            if any(needle in line for needle in self._needles.values()):
                record = parse_line(line)
                if record is not None:
                    self._add(record)
        if self._offset > before:
            self.last = parse_line(self._last_line) or self.last

    def _add(self, record: dict[str, Any]) -> None:
        self._values.extend(number(record.get(name)) for name in self._names)
        self.last_with |= dict.fromkeys(self._needles.keys() & record.keys(), record)


def number(value: Any) -> float:
    """Return ``value`` as a float, or NaN if it is not a finite number."""
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if is_number else math.nan
