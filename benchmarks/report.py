"""Format results as a table for readers and as JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from benchmarks.case import Case
from benchmarks.machine import describe
from benchmarks.runner import Result
from diffusion_policy.util.provenance import commit
from diffusion_policy.util.tables import aligned_table

HEADER = (
    "what",
    "figure",
    "quartiles",
    "unit",
    "reference",
    "times better",
    "target",
    "loop",
    "product",
)


def heading() -> str:
    """Return date, commit and machine of the figures."""
    facts = ", ".join(f"{name} {value}" for name, value in describe().items())
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit()}\n{facts}"


def table(results: Sequence[Result]) -> str:
    """Return one line per case; ``loop`` and ``product`` are the machine's pace during it."""
    rows = [HEADER, *(_row(result) for result in results)]
    return aligned_table(rows, left=[HEADER.index("what"), HEADER.index("unit")])


def growth(results: Iterable[Result]) -> list[str]:
    """Return one line per series: the exponent of the power law of figure over size."""
    in_series = [result for result in results if result.case.series is not None]
    lines = []
    for series, members in groupby(in_series, key=lambda result: result.case.series):
        points = [(math.log(r.case.size), math.log(r.median)) for r in members]
        if len(points) > 1:
            lines.append(f"{series}: figure ~ size^{_slope(points):.2f}")
    return lines


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """Return all results and facts as JSON values."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": describe(),
        "results": [
            {
                "name": result.case.name,
                "what": result.case.what,
                "unit": result.case.unit,
                "figure": result.median,
                "quartiles": result.spread,
                "figures": result.figures,
                "reference": result.case.reference,
                "times_better": result.case.times_better(result.median),
                "target": result.case.target,
                "pace": asdict(result.pace),
            }
            for result in results
        ],
    }


def _row(result: Result) -> tuple[str, ...]:
    case, better = result.case, result.case.times_better(result.median)
    low, high = map(_short, result.spread)
    return (
        case.what,
        _short(result.median),
        f"{low} - {high}",
        case.unit,
        "" if case.reference is None else _short(case.reference),
        "" if better is None else f"{better:.2f}",
        _target(case),
        f"{result.pace.loop:.0f}",
        f"{result.pace.product:.0f}",
    )


def _target(case: Case) -> str:
    if case.target is None:
        return ""
    return _short(case.target) if case.reference is None else f"{case.target:g} x"


def _short(figure: float) -> str:
    """Round to three digits and group by commas."""
    if figure == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(figure))))
    rounded = round(figure, 2 - math.floor(math.log10(abs(figure))))
    return f"{rounded:,.{digits}f}"


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the least-squares line."""
    n = len(points)
    mean_x, mean_y = (sum(values) / n for values in zip(*points, strict=True))
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return covariance / sum((x - mean_x) ** 2 for x, _ in points)
