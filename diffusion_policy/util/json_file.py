"""Read a JSON file that may be damaged, or come from anybody."""

from __future__ import annotations

import json
import math
from itertools import cycle
from pathlib import Path
from typing import Any, NoReturn

from diffusion_policy.util.errors import UserError, one_line
from diffusion_policy.util.json_text import whole_number

MAX_BYTES = 100_000_000
"""What a file may hold: in memory it takes some ten times as much. An episode takes 300."""
NUMBER = "a number"
"""Shape of a finite number."""


def read_json(path: Path, shape: Any, remedy: str) -> Any:
    """Read a file and check that its contents have a shape.

    Args:
        shape: a type, a tuple of types, :data:`NUMBER`, ``[shape of each item]``, ``[shape of the
            first, of the second]`` where there must be two, or a dict with the shape of each key
            that is needed. A key that ends in ``?`` may be absent or null.
        remedy: what to do with a damaged file, for the message.

    Raises:
        UserError: it cannot be read, is not JSON, or has another shape; names the first difference.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        value = json.loads(text, parse_constant=_refuse, parse_int=whole_number)
        require_shape(value, shape)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({one_line(error)}); {remedy}") from None
    return value


def require_shape(value: Any, shape: Any) -> None:
    """Check plain data against a shape, see :func:`read_json`.

    Raises:
        ValueError: names the first difference.
    """
    if difference := _difference(value, shape, "it"):
        raise ValueError(difference)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _difference(value: Any, shape: Any, name: str) -> str | None:
    """What in ``value`` is not as the shape says; None if all is."""
    if shape == NUMBER:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_as_told = is_number and math.isfinite(value)
    elif isinstance(shape, type | tuple):
        types = shape if isinstance(shape, tuple) else (shape,)
        is_as_told = type(value) in types  # a bool is no int here
    else:
        is_as_told = isinstance(value, type(shape))
    if not is_as_told:
        return f"{name} is {str(value)[:40]!r}"
    if isinstance(shape, list):
        if len(shape) > 1 and len(value) != len(shape):
            return f"{name} has {len(value)} entries, not {len(shape)}"
        shapes = cycle(shape)
        parts = ((f"{name}[{i}]", item, next(shapes)) for i, item in enumerate(value))
    elif isinstance(shape, dict):
        if missing := [key for key in shape if not key.endswith("?") and key not in value]:
            return f"{name} has no {missing[0]}"
        keys = {key.removesuffix("?"): key for key in shape}
        present = (name for name, key in keys.items() if key == name or value.get(name) is not None)
        parts = ((key, value[key], shape[keys[key]]) for key in present)
    else:
        return None
    return next(filter(None, (_difference(item, part, key) for key, item, part in parts)), None)
