"""Normalisers from statistics, as users of the original diffusion_policy call them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from diffusion_policy.model.common.normalizer import SingleFieldLinearNormalizer

Stat = Mapping[str, np.ndarray]
"""``min``, ``max``, ``mean`` and ``std`` of each feature (D,)."""


def array_to_stats(arr: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics (D,) of the rows of ``arr`` (N, D); std has the divisor N."""
    return {
        "min": np.min(arr, axis=0),
        "max": np.max(arr, axis=0),
        "mean": np.mean(arr, axis=0),
        "std": np.std(arr, axis=0),
    }


def get_range_normalizer_from_stat(
    stat: Stat, output_max: float = 1, output_min: float = -1, range_eps: float = 1e-7
) -> SingleFieldLinearNormalizer:
    """Maps min..max to [output_min, output_max]; constant features go to its middle."""
    scale, offset = _to_range(stat, output_max, output_min, range_eps)
    return SingleFieldLinearNormalizer.create_manual(scale, offset, stat)


def get_image_range_normalizer() -> SingleFieldLinearNormalizer:
    """Maps images in [0, 1] to [-1, 1]."""
    stat = {"min": 0.0, "max": 1.0, "mean": 0.5, "std": np.sqrt(1 / 12)}
    return get_range_normalizer_from_stat({name: np.array([x]) for name, x in stat.items()})


def get_identity_normalizer_from_stat(stat: Stat) -> SingleFieldLinearNormalizer:
    """Leaves values as they are and keeps their statistics."""
    ones, zeros = np.ones_like(stat["min"]), np.zeros_like(stat["min"])
    return SingleFieldLinearNormalizer.create_manual(ones, zeros, stat)


def robomimic_abs_action_only_normalizer_from_stat(stat: Stat) -> SingleFieldLinearNormalizer:
    """Scales the position (the first 3 features) to [-1, 1] and leaves the others as they are."""
    return _scaling_positions(stat, [0])


def robomimic_abs_action_only_dual_arm_normalizer_from_stat(
    stat: Stat,
) -> SingleFieldLinearNormalizer:
    """Scales both arms' positions (the first 3 features of each half) and leaves the others."""
    return _scaling_positions(stat, [0, len(stat["max"]) // 2])


def _scaling_positions(stat: Stat, starts: list[int]) -> SingleFieldLinearNormalizer:
    others = np.ones(len(stat["max"]), dtype=bool)
    for start in starts:
        others[start : start + 3] = False
    scale, offset = _to_range(stat, 1, -1, 1e-7)
    scale[others], offset[others] = 1, 0
    # Statistics of the others are set to those of values in [-1, 1], as published runs have them.
    known = {"min": -1, "max": 1, "mean": 0, "std": 1}
    stat = {name: np.where(others, known[name], values) for name, values in stat.items()}
    return SingleFieldLinearNormalizer.create_manual(scale, offset, stat)


def _to_range(
    stat: Stat, output_max: float, output_min: float, range_eps: float
) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.asarray(stat["min"]), np.asarray(stat["max"])
    constant = high - low < range_eps
    scale = (output_max - output_min) / np.where(constant, output_max - output_min, high - low)
    middle = (output_max + output_min) / 2
    return scale, np.where(constant, middle - low, output_min - scale * low)
