"""Columns of numbers of a LeRobot data set in the type in which they were recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffusion_policy.dataset.stores.lerobot.checks import REMEDY
from diffusion_policy.dataset.stores.lerobot.features import Feature
from diffusion_policy.dataset.stores.lerobot.metadata import LeRobotMetadata
from diffusion_policy.dataset.stores.lerobot.parquet import read_columns
from diffusion_policy.util.errors import UserError


def raw_numbers(metadata: LeRobotMetadata, key: str, feature: Feature) -> np.ndarray:
    """All steps (N, *shape) of a feature of numbers, in its ``dtype``.

    Raises:
        UserError: a file is missing or damaged, or holds other rows or shapes than it should.
    """
    found: dict[Path, np.ndarray] = {}
    parts = []
    for episode in metadata.episodes:
        path = episode.data_file
        if path not in found:
            found[path] = _numbers(path, key, feature)
        rows = found[path][episode.first_row : episode.first_row + episode.length]
        if len(rows) < episode.length:
            raise UserError(f"{path} ends within an episode of {episode.length} steps; {REMEDY}")
        parts.append(rows)
    return np.concatenate(parts)


def _numbers(path: Path, key: str, feature: Feature) -> np.ndarray:
    """(n, *shape) of one file."""
    column = read_columns(path, [key]).column(key).combine_chunks()
    n = len(column)
    while hasattr(column, "flatten") and hasattr(column.type, "value_type"):
        column = column.flatten()
    try:
        values = column.to_numpy(zero_copy_only=False).astype(feature.dtype, copy=False)
        return values.reshape(n, *feature.shape)
    except (ValueError, TypeError, AttributeError):
        raise UserError(
            f"{path} holds other things than {feature.dtype} of shape {list(feature.shape)} in "
            f"{key!r}; {REMEDY}"
        ) from None
