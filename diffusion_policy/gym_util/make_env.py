"""Environments described by plain data, so that any process can build one without pickled code."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium as gym

import diffusion_policy.env  # noqa: F401  (registers the package's environments)
from diffusion_policy.util.errors import UserError

DEFAULT_MAX_STEPS = 300
"""Length of an episode where neither the task nor the environment sets one."""


def make_env(spec: Mapping[str, Any], max_steps: int | None = None) -> gym.Env:
    """Build the environment that ``spec`` describes.

    Args:
        spec: ``{"id": <gymnasium id>}`` or ``{"factory": "<module>:<function>"}``, and optionally
            ``kwargs`` for either. A registered environment gets ``render_mode="rgb_array"``
            unless it takes no such argument, or its kwargs say otherwise. ``my_package/MyTask-v0``
            is looked for in the package ``my_package``, which is imported for it.
        max_steps: steps after which an episode is truncated; None keeps the environment's own
            limit, or is :data:`DEFAULT_MAX_STEPS` where it has none.

    Raises:
        UserError: the description names no environment, one that does not exist, or arguments that
            it does not take.
    """
    kwargs = dict(spec.get("kwargs") or {})
    match sorted(set(spec) - {"kwargs"}):
        case ["id"]:
            env = _make_registered(spec["id"], kwargs, max_steps)
        case ["factory"]:
            env = _call(spec["factory"], _import_factory(spec["factory"]), kwargs)
            if max_steps is not None:
                env = gym.wrappers.TimeLimit(env, max_steps)
        case keys:
            raise UserError(
                f"environment description has the keys {keys}: give either id or factory, "
                "and optionally kwargs"
            )
    return env if step_limit(env) else gym.wrappers.TimeLimit(env, DEFAULT_MAX_STEPS)


def step_limit(env: gym.Env) -> int | None:
    """Steps after which an episode of ``env`` is truncated; None if it has no limit."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.TimeLimit):
            return env._max_episode_steps
        env = env.env
    return None


def _make_registered(env_id: str, kwargs: dict[str, Any], max_steps: int | None) -> gym.Env:
    _import_package(env_id)
    # The checker repeats on every first step of every slot what the tests check once.
    make = partial(gym.make, env_id, max_episode_steps=max_steps, disable_env_checker=True)
    try:
        try:
            return _call(env_id, make, {"render_mode": "rgb_array", **kwargs})
        except UserError as error:
            # One without pictures, or that always makes them, need not have the argument.
            if "render_mode" in kwargs or "argument 'render_mode'" not in str(error):
                raise
            return _call(env_id, make, kwargs)
    except gym.error.UnregisteredEnv as error:
        raise UserError(
            f"environment {env_id!r} is not registered ({error}); correct task.env_runner.env.id, "
            "and if it is of a package of your own, install that or put its folder on PYTHONPATH"
        ) from error


def _import_package(env_id: str) -> None:
    """Import the package whose name an id begins with, which then registers its environments.

    Gymnasium looks an id up among those that are registered, and imports nothing by itself.
    """
    module, colon, _ = str(env_id).rpartition(":")
    if colon and not module.replace(".", "").isidentifier():
        raise UserError(  # Gymnasium would import the file of that path
            f"environment {env_id!r} names no module before the colon; use my_package:MyTask-v0"
        )
    package, slash, _ = str(env_id).partition("/")
    known = env_id in gym.registry or not slash or not package.isidentifier()
    if not known and importlib.util.find_spec(package) is not None:
        importlib.import_module(package)


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
