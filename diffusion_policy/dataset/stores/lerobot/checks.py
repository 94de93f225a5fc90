"""Checks that all files in ``meta/`` of a LeRobot dataset share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffusion_policy.util.errors import UserError, one_line

REMEDY = (
    "fetch or write the data set again, or repair it with python -m "
    "diffusion_policy.scripts.inspect_dataset --repair"
)


@contextmanager
def about(path: Path, what: str = "") -> Iterator[None]:
    """Put the file, and a remedy where there is none, to errors of the block."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({what}{one_line(error)}); {REMEDY}") from None


def in_order(path: Path, index: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows by their index, which counts from 0 without a gap."""
    ordered = sorted(rows, key=lambda row: row[index])
    for expected, row in enumerate(ordered):
        if row[index] != expected:
            what = "is missing" if row[index] > expected else "occurs twice or is negative"
            raise UserError(
                f"{path} has {index} {row[index]} where {expected} belongs (one {what}); {REMEDY}"
            )
    return ordered
