"""Checks raw observations against what a task observes. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    require_keys(spec, observations)
    return {
        key: checked_text(key, observations[key], leading)
        if field.type == "text"
        else _array(key, observations[key], field, leading)
        for key, field in spec.obs.items()
    }


def require_keys(spec: TaskSpec, observations: Iterable[str]) -> None:
    """Refuse observations of these names if ``spec`` names another one.

    Raises:
        UserError: names the first that is missing.
    """
    given = list(observations)
    missing = [key for key in spec.obs if key not in given]
    if missing:
        raise UserError(
            f"the observation has no {missing[0]!r}, but {', '.join(given) or 'no keys'}; "
            f"the policy needs {', '.join(spec.obs)}"
        )


def require_values(
    key: str, field: Field, shape: Sequence[int], dtype: Any, leading: Sequence[int]
) -> None:
    """Refuse values of another shape or dtype than those of the task.

    Args:
        dtype: of numpy or torch; its name tells the kind of number.
        leading: sizes of the axes before those of one time step.

    Raises:
        UserError: names the observation and what to give.
    """
    name = str(dtype).removeprefix("torch.")
    expected = (*leading, *field.shape)
    if tuple(shape) != expected:
        hint = ""
        if field.type == "rgb" and tuple(shape) == (*leading, *field.shape[1:], field.shape[0]):
            hint = "; move the channels first"
        raise UserError(
            f"observation {key!r} has shape {list(shape)}; the task's is {list(expected)}{hint}"
        )
    if field.type == "rgb" and name != "uint8":
        raise UserError(f"observation {key!r} is {name}; give images as uint8, 0 to 255")
    if field.type == "depth" and "float" not in name:
        raise UserError(f"observation {key!r} is {name}; give depth as float metres")
    if not name.startswith(("bool", "int", "uint", "float", "bfloat")):
        raise UserError(f"observation {key!r} is {name}; give numbers")


def require_finite(key: str, field: Field, finite: bool) -> None:
    """Refuse values that are not all ``finite``.

    Raises:
        UserError: names the observation and what to give.
    """
    if not finite:
        remedy = "0 where nothing was measured" if field.type == "depth" else "finite numbers"
        raise UserError(f"observation {key!r} holds NaN or infinity; give {remedy}")


def checked_text(key: str, value: Any, leading: Sequence[int]) -> str | list[str]:
    """The text as it is, or the texts as a list; ``leading`` as in :func:`checked_observations`.

    Raises:
        UserError: it is something else.
    """
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
    require_values(key, field, array.shape, array.dtype, leading)
    require_finite(key, field, array.dtype.kind != "f" or bool(np.isfinite(array).all()))
    return array
