"""Plain data as JSON that every reader accepts, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

_MOST_DIGITS = 20


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON with a line end. Numbers that are not finite become null: JSON has no NaN."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False) + "\n"


def whole_number(text: str) -> int:
    """A whole number of a JSON file, for ``json.loads(parse_int=...)``.

    Raises:
        ValueError: it has more than 64 bits, and would break every computation with floats.
    """
    number = int(text) if len(text) <= _MOST_DIGITS else None
    if number is None or abs(number) >= 2**63:
        raise ValueError(f"a number has {len(text)} digits")
    return number


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
