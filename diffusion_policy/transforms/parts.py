"""Finds, reads and replaces parts of the vectors in a spec and in a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from diffusion_policy.spec.batch import Batch
from diffusion_policy.spec.task_spec import Field, Part, TaskSpec
from diffusion_policy.util.errors import UserError


def find_part(spec: TaskSpec, key: str, name: str | None = None) -> tuple[Part, slice]:
    """A part of a vector, and where it lies on the last axis.

    Args:
        spec: what there is.
        key: an observation, or ``action``.
        name: of the part; None is the whole vector, which may have one part at most.

    Raises:
        UserError: there is no such vector or part.
    """
    field = find_field(spec, key)
    if field.type != "low_dim" or len(field.shape) != 1:
        raise UserError(
            f"a transform asks for parts of {key!r}, a {field.type} of shape {list(field.shape)}; "
            "name a vector"
        )
    parts = field.parts or (Part("all", field.size, limits=field.limits),)
    if name is None:
        if len(parts) > 1:
            raise UserError(f"a transform names no part of {key!r}; name {_one_of(parts)}")
        return parts[0], slice(0, field.size)
    start = 0
    for part in parts:
        if part.name == name and field.parts:
            return part, slice(start, start + part.size)
        start += part.size
    known = f"name {_one_of(field.parts)}" if field.parts else "give it parts in shape_meta"
    raise UserError(f"a transform asks for part {name!r} of {key!r}, which has none; {known}")


def find_field(spec: TaskSpec, key: str) -> Field:
    """An observation, or the action.

    Raises:
        UserError: there is none of that name.
    """
    if key not in spec.fields:
        raise UserError(
            f"a transform asks for {key!r}, which is not there; name one of "
            f"{', '.join(spec.fields)}"
        )
    return spec.fields[key]


def with_field(spec: TaskSpec, key: str, field: Field) -> TaskSpec:
    """The spec with another field for an observation, new or old, or for the action."""
    if key == "action":
        return replace(spec, action=field)
    return replace(spec, obs={**spec.obs, key: field})


def with_part(spec: TaskSpec, key: str, name: str | None, **changes: Any) -> TaskSpec:
    """The spec with a part of a vector changed, as ``dataclasses.replace`` does."""
    part, _ = find_part(spec, key, name)
    field = spec.fields[key]
    changed = replace(part, **changes)
    if not field.parts:  # its one part has no name
        new = replace(field, shape=(changed.size,), limits=changed.limits)
        return with_field(spec, key, new)
    parts = tuple(changed if one is part else one for one in field.parts)
    size = sum(one.size for one in parts)
    return with_field(spec, key, replace(field, shape=(size,), parts=parts))


def map_part(
    values: np.ndarray, where: slice, function: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """float32 copy of (..., D) with ``function`` of the numbers in ``where`` in their place."""
    new = function(values[..., where])
    pieces = (values[..., : where.start], new, values[..., where.stop :])
    return np.concatenate(pieces, axis=-1, dtype=np.float32)


def map_key(batch: Batch, key: str, function: Callable[[Any], Any]) -> Batch:
    """The batch with ``function`` of an observation, or of the action, in its place if present."""
    if key == "action":
        return {**batch, "action": function(batch["action"])} if "action" in batch else batch
    if key not in batch["obs"]:
        return batch
    return {**batch, "obs": {**batch["obs"], key: function(batch["obs"][key])}}


def _one_of(parts: tuple[Part, ...]) -> str:
    return f"one of {', '.join(part.name for part in parts)}"
