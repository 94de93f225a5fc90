"""Environments described by plain data, so that any process can build one without pickled code."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium as gym

import diffusion_policy.env  # noqa: F401  (registers the package's environments)
from diffusion_policy.util.errors import UserError


def make_env(spec: Mapping[str, Any], max_steps: int | None = None) -> gym.Env:
    """Build the environment that ``spec`` describes.

    Args:
        spec: ``{"id": <gymnasium id>}`` or ``{"factory": "<module>:<function>"}``, and optionally
            ``kwargs`` for either. A registered environment gets ``render_mode="rgb_array"``
            unless its kwargs say otherwise.
        max_steps: steps after which an episode is truncated; None keeps the registered limit.

    Raises:
        UserError: the description names no environment, one that does not exist, or arguments that
            it does not take.
    """
    kwargs = dict(spec.get("kwargs") or {})
    match sorted(set(spec) - {"kwargs"}):
        case ["id"]:
            return _make_registered(spec["id"], kwargs, max_steps)
        case ["factory"]:
            env = _call(spec["factory"], _import_factory(spec["factory"]), kwargs)
            return env if max_steps is None else gym.wrappers.TimeLimit(env, max_steps)
        case keys:
            raise UserError(
                f"environment description has the keys {keys}: give either id or factory, "
                "and optionally kwargs"
            )


def _make_registered(env_id: str, kwargs: dict[str, Any], max_steps: int | None) -> gym.Env:
    try:
        # The checker repeats on every first step of every slot what the tests check once.
        return _call(
            env_id,
            partial(gym.make, env_id, max_episode_steps=max_steps, disable_env_checker=True),
            {"render_mode": "rgb_array", **kwargs},
        )
    except gym.error.UnregisteredEnv as error:
        raise UserError(f"environment {env_id!r} is not registered: {error}") from error


def _call(name: str, make: Callable[..., gym.Env], kwargs: Mapping[str, Any]) -> gym.Env:
    try:
        return make(**kwargs)
    except TypeError as error:
        if not re.search(r"unexpected keyword argument|missing \d+ required", str(error)):
            raise
        raise UserError(
            f"environment {name!r} cannot be made with kwargs {dict(kwargs)}: {error}"
        ) from error


def _import_factory(path: str) -> Any:
    module_name, _, function_name = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"environment factory {path!r} cannot be imported ({error}); "
            "write it as <module>:<function>"
        ) from error
