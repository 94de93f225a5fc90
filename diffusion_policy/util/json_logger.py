"""A log with one JSON object per line that survives crashes and resumes."""

from __future__ import annotations

import json
import math
import numbers
from pathlib import Path
from typing import Any

from diffusion_policy.util.errors import writing
from diffusion_policy.util.json_text import json_text, whole_number
from diffusion_policy.util.output_dir import write_atomically


class JsonLogger:
    """Append records to ``logs.json.txt``; use as a context manager.

    Args:
        path: the file.
        keep: number of records to keep from an existing file. Later records, and a line torn by a
            crash, are dropped, because a resumed run logs them again.

    Attributes:
        n_kept: number of records kept; fewer than ``keep`` if the file lost some in a power cut.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        self.path = path
        lines = path.read_bytes().splitlines()[:keep] if path.is_file() else []
        kept = [record for line in lines if (record := parse_line(line)) is not None]
        self.n_kept = len(kept)
        text = "".join(map(_line, kept))
        write_atomically(path, text.encode())
        with writing(path):
            # Unbuffered: closing must not retry bytes that a full disk refused.
            self._file = path.open("ab", buffering=0)

    def log(self, record: dict[str, Any]) -> None:
        """Append one record; keep numbers and strings and leave out other values.

        Raises:
            UserError: the record cannot be written; earlier records are safe.
        """
        left = _line(record).encode()
        with writing(self.path):
            while left:  # a nearly full disk accepts only a part
                left = left[self._file.write(left) :]

    def __enter__(self) -> JsonLogger:
        return self

    def __exit__(self, *_: object) -> None:
        with writing(self.path):
            self._file.close()


def _line(record: dict[str, Any]) -> str:
    plain = {key: _plain(value) for key, value in record.items()}
    return json_text({key: value for key, value in plain.items() if value is not None})


def _plain(value: Any) -> int | float | str | None:
    if isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else str(value)
    return None


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return all complete records of a log; [] if the file does not exist."""
    if not path.is_file():
        return []
    with path.open("rb") as lines:
        return [record for line in lines if (record := parse_line(line)) is not None]


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the record of one line of a log; None if the line is torn or damaged."""
    try:
        record = json.loads(line, parse_int=whole_number)
    except (ValueError, RecursionError):  # not JSON, or not even text
        return None
    step = record.get("global_step", 0) if isinstance(record, dict) else None
    return record if isinstance(step, int) else None
