"""The episodes of an evaluation as a small table: ``episodes.csv.gz``."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_file import MAX_BYTES, NUMBER, require_shape
from diffusion_policy.util.json_text import whole_number

EPISODES_FILE = "episodes.csv.gz"
EPISODE = {
    "group?": str,
    "name?": str,
    "seed": int,
    "success?": bool,
    "max_reward": NUMBER,
    "best_step?": int,
    "length": int,
    "video?": str,
}
"""What pages and tables read of an episode."""
_TEXTS = ("group", "name", "video")
"""Columns that hold text. The others hold numbers and booleans, written as in JSON."""


def write_episodes(path: Path, episodes: Sequence[Mapping[str, Any]]) -> None:
    """Write a row per episode and a column per key. None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(episodes[0]), lineterminator="\n")
    writer.writeheader()
    for episode in episodes:
        writer.writerow({key: _cell(key, value) for key, value in episode.items()})
    # Without a time stamp: the same episodes give the same file.
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def read_episodes(path: Path) -> list[dict[str, Any]]:
    """Read the episodes; each number comes back exactly.

    Raises:
        UserError: the table is missing or damaged.
    """
    try:
        with gzip.open(path) as packed:
            text = packed.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise ValueError(f"it unpacks to more than {MAX_BYTES:,} bytes")
        rows = csv.DictReader(io.StringIO(text.decode(), newline=""))
        episodes = [{key: _value(key, cell) for key, cell in row.items()} for row in rows]
        require_shape(episodes, [EPISODE])
    except (OSError, EOFError, zlib.error, csv.Error, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it from a copy") from None
    return episodes


def _cell(key: str, value: Any) -> str:
    if value is None:
        return ""
    return value if key in _TEXTS else json.dumps(value)


def _value(key: str, cell: str) -> Any:
    if not cell:
        return None
    return cell if key in _TEXTS else json.loads(cell, parse_int=whole_number)
