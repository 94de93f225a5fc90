"""Deterministic weights and inputs of the reference outputs in golden/."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of one golden file."""
    with np.load(GOLDEN / f"{name}.npz") as data:
        return {key: data[key] for key in data.files}


def reference_shapes(name: str) -> dict[str, list[int]]:
    """Names and shapes of every entry of a reference network's state_dict."""
    return json.loads((GOLDEN / "state_dicts.json").read_text())[name]["state_dict"]


def reference_config(name: str) -> dict[str, Any]:
    """Constructor settings of a reference network."""
    return json.loads((GOLDEN / "state_dicts.json").read_text())[name]["config"]


def reference_weights(name: str) -> dict[str, Tensor]:
    """Weights by rule: scale * sin(0.37 j + 1.3 k) for element j of the k-th sorted name.

    Entries that DOT derives from its settings (decoder positions, masks) are left out. The masks
    of the denoising transformer are floats added to the scores, and follow the rule like weights.
    """
    shapes = reference_shapes(name)
    computed = {
        key for key in shapes if name.startswith("dot/") and ("decoder_pos" in key or key == "mask")
    }
    return weights_by_rule(shapes, _sines, left_out=computed)


def weights_by_rule(
    shapes: Mapping[str, Sequence[int]], rule: Callable[[int, int], np.ndarray], left_out: Set[str]
) -> dict[str, Tensor]:
    """Weights by a rule: scale * rule(numbers, k) for the k-th sorted name.

    Args:
        left_out: names that count and have no weights here.
    """
    weights = {}
    for k, (key, shape) in enumerate(sorted(shapes.items())):
        if key in left_out:
            continue
        scale = 0.05 if len(shape) < 2 else 1 / math.sqrt(math.prod(shape[1:]))
        value = scale * rule(math.prod(shape), k).reshape(tuple(shape))
        if len(shape) == 1 and key.endswith("weight"):
            value = value + 1
        if key.endswith("running_var"):
            value = np.abs(value) + 0.5
        weights[key] = torch.tensor(value, dtype=torch.float32)
    return weights


def _sines(n: int, k: int) -> np.ndarray:
    """Rule A of the golden files: makes every matrix rank 2."""
    return np.sin(0.37 * np.arange(n) + 1.3 * k)


def _mixed(n: int, k: int) -> np.ndarray:
    """Rule B, well conditioned: swapped tokens or positions change the output."""
    j = np.arange(n, dtype=np.int64)
    return math.sqrt(3) * (2 * ((7 * j * j + 13 * j + 101 * k) % 1009) / 1008 - 1)


RULES = {"": _sines, "_b": _mixed}
"""The rules by the ending of a golden file's name."""


def reference_input(shape: tuple[int, ...], phase: float) -> Tensor:
    """sin(0.11 i + phase) over the elements."""
    values = np.sin(0.11 * np.arange(math.prod(shape)) + phase)
    return torch.tensor(values.reshape(shape), dtype=torch.float32)
