"""Compares what a task's config says with what its environment observes and takes."""

from __future__ import annotations

import numpy as np

from diffusion_policy.gym_util.spaces import ArraySpace, EnvSpaces, TextSpace
from diffusion_policy.spec.task_spec import Field, TaskSpec
from diffusion_policy.util.errors import UserError


def check_spaces(spec: TaskSpec, spaces: EnvSpaces) -> None:
    """Check that the environment can play the task.

    Raises:
        UserError: the environment lacks an observation, or one has another shape or type.
    """
    for key, field in spec.obs.items():
        if key not in spaces.observations:
            raise UserError(
                f"shape_meta.obs has {key!r}, which the environment does not observe; "
                f"it observes {', '.join(spaces.observations)}"
            )
        space = spaces.observations[key]
        _check_type(f"obs.{key}", field, space)
        if isinstance(space, ArraySpace):
            _check_shape(f"obs.{key}", field, space)
    _check_shape("action", spec.action, spaces.action)


def _check_type(name: str, field: Field, space: ArraySpace | TextSpace) -> None:
    if isinstance(space, TextSpace):
        found, fits = "text", field.type == "text"
    else:
        found = str(np.dtype(space.dtype))
        fits = field.type != "text" and (field.type == "rgb") == (found == "uint8")
        fits = fits and (field.type != "depth" or found.startswith("float"))
    if not fits:
        raise UserError(
            f"shape_meta.{name}.type is {field.type!r}, but the environment's is {found}; "
            "rgb is uint8, depth is float metres, text is text, and other numbers are low_dim"
        )


def _check_shape(name: str, field: Field, space: ArraySpace) -> None:
    if tuple(field.shape) != tuple(space.shape):
        raise UserError(
            f"shape_meta.{name}.shape is {list(field.shape)}, but the environment's is "
            f"{list(space.shape)}; change the task's shape_meta or its env"
        )
