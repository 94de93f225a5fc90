"""Recorded episodes in a few lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from diffusion_policy.inspection.recording import Finding, Recording
from diffusion_policy.util.errors import printable
from diffusion_policy.util.tables import aligned_table

_MOST_DIMS = 16


def facts(recording: Recording) -> list[tuple[str, str]]:
    """What the data set is as a whole, by name."""
    store, lengths = recording.store, recording.lengths
    duration = f", {store.n_steps / store.fps:,.1f} s" if store.fps else ""
    found = [
        ("format", type(store).__name__.removesuffix("Store")),
        ("robot", store.embodiment or ""),
        ("rate", f"{store.fps:g} Hz" if store.fps else "unknown"),
        ("episodes", f"{recording.n_episodes:,}"),
        ("steps", f"{store.n_steps:,}{duration}"),
        (
            "steps of an episode",
            f"{lengths.min()} to {lengths.max()}, median {np.median(lengths):g}",
        ),
        ("tasks", _tasks(recording)),
    ]
    return [(name, value) for name, value in found if value]


def _tasks(recording: Recording) -> str:
    told = {recording.store.episode(i).task or "" for i in range(recording.n_episodes)} - {""}
    some = ", ".join(repr(task[:80]) for task in sorted(told)[:3])
    return f"{len(told)}: {some}{', ...' if len(told) > 3 else ''}" if told else ""


def feature_rows(recording: Recording) -> list[tuple[str, str, str, str]]:
    """Name, type, shape and range of every feature."""
    return list(_rows(recording))


def _rows(recording: Recording) -> Iterator[tuple[str, str, str, str]]:
    for key, field in recording.fields.items():
        shape = " x ".join(map(str, field.shape))
        values = recording.vectors.get(key)
        yield key, field.type, shape, "" if values is None else ranges(values)


def ranges(values: np.ndarray) -> str:
    """Least and largest value of each number of a vector (N, D), NaN left out."""
    finite = np.where(np.isfinite(values), values, np.nan)
    dims = finite.T[:_MOST_DIMS]
    known = [dim[~np.isnan(dim)] for dim in dims]
    texts = [f"{d.min():.4g} to {d.max():.4g}" if len(d) else "not finite" for d in known]
    return "; ".join(texts) + ("; ..." if values.shape[1] > _MOST_DIMS else "")


def summary(recording: Recording, findings: Sequence[Finding]) -> str:
    """The facts, the features and the findings, to print."""
    lines = [f"{name:20}{value}" for name, value in facts(recording)]
    table = aligned_table(
        [("feature", "type", "shape", "range"), *feature_rows(recording)], left=(0, 1, 2, 3)
    )
    found = [f"- {finding.check}: {finding.message}" for finding in findings]
    parts = [*lines, "", *table.splitlines(), "", *(found or ["nothing suspicious was found"])]
    return "\n".join(map(printable, parts))
