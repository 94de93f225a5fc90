"""A log of one JSON object a line that stays readable through crashes and resumes."""

from __future__ import annotations

import json
import math
import numbers
from pathlib import Path
from typing import Any

from diffusion_policy.util.output_dir import write_atomically, writing


class JsonLogger:
    """Appends records to ``logs.json.txt``; use as a context manager.

    Args:
        path: the file.
        keep: records to keep of an existing file. Later ones, and a line torn by a crash, are
            dropped: a resumed run logs them again.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        self.path = path
        kept = read_log(path)[:keep]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        write_atomically(path, text.encode())
        with writing(path):
            # Unbuffered: what a full disk refused must not be tried again on closing.
            self._file = path.open("ab", buffering=0)

    def log(self, record: dict[str, Any]) -> None:
        """Append one record: numbers and strings are kept, other values left out.

        Raises:
            UserError: it cannot be written; the records before it are.
        """
        plain = {key: _plain(value) for key, value in record.items()}
        line = json.dumps({key: value for key, value in plain.items() if value is not None})
        left = f"{line}\n".encode()
        with writing(self.path):
            while left:  # a disk that is nearly full takes a part
                left = left[self._file.write(left) :]

    def __enter__(self) -> JsonLogger:
        return self

    def __exit__(self, *_: object) -> None:
        with writing(self.path):
            self._file.close()


def _plain(value: Any) -> int | float | str | None:
    if isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else str(value)
    return None


def read_log(path: Path) -> list[dict[str, Any]]:
    """All complete records of a log; [] when there is none."""
    if not path.is_file():
        return []
    with path.open("rb") as lines:
        return [record for line in lines if (record := parse_line(line)) is not None]


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The record that a line of a log holds; None for one torn by a crash."""
    try:
        return json.loads(line)
    except ValueError:  # not JSON, or not even text
        return None
