"""Checks raw observations against what a task observes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffusion_policy.spec.task_spec import Field, TaskSpec
from diffusion_policy.util.errors import UserError


def checked_observations(
    spec: TaskSpec, observations: Mapping[str, Any], leading: tuple[int, ...] = ()
) -> dict[str, Any]:
    """The observations that ``spec`` names, as arrays; text stays as it is.

    Args:
        observations: may hold further keys, which are left out.
        leading: sizes of the axes before those of one time step: () for a single observation,
            (B, To) for a batch. Text has no time axis: it is a str, or a list of B.

    Raises:
        UserError: a key is missing, or its value has the wrong shape or dtype.
    """
    missing = [key for key in spec.obs if key not in observations]
    if missing:
        raise UserError(
            f"the observation has no {missing[0]!r}, but {', '.join(observations) or 'no keys'}; "
            f"the policy needs {', '.join(spec.obs)}"
        )
    return {
        key: _text(key, observations[key], leading)
        if field.type == "text"
        else _array(key, observations[key], field, leading)
        for key, field in spec.obs.items()
    }


def _text(key: str, value: Any, leading: tuple[int, ...]) -> str | list[str]:
    if not leading:
        if not isinstance(value, str):
            raise UserError(f"observation {key!r} is {value!r}; give a str")
        return value
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_list or len(value) != leading[0] or not all(isinstance(text, str) for text in value):
        raise UserError(f"observation {key!r} is {value!r}; give a list of {leading[0]} str")
    return list(value)


def _array(key: str, value: Any, field: Field, leading: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(value)
    expected = (*leading, *field.shape)
    if array.shape != expected:
        hint = ""
        if field.type == "rgb" and array.shape == (*leading, *field.shape[1:], field.shape[0]):
            hint = "; move the channels first"
        raise UserError(
            f"observation {key!r} has shape {list(array.shape)}; the task's is {list(expected)}"
            f"{hint}"
        )
    if field.type == "rgb" and array.dtype != np.uint8:
        raise UserError(f"observation {key!r} is {array.dtype}; give images as uint8, 0 to 255")
    if field.type == "depth" and array.dtype.kind != "f":
        raise UserError(f"observation {key!r} is {array.dtype}; give depth as float metres")
    if array.dtype.kind not in "biuf":
        raise UserError(f"observation {key!r} is {array.dtype}; give numbers")
    return array
