"""What an environment observes and takes, as plain data that a worker process can tell."""

from __future__ import annotations

from typing import NamedTuple

import gymnasium as gym

from diffusion_policy.gym_util.make_env import DEFAULT_MAX_STEPS, step_limit
from diffusion_policy.util.errors import UserError


class ArraySpace(NamedTuple):
    """Arrays of one shape and dtype (``np.dtype.str``): a ``Box`` without its bounds."""

    shape: tuple[int, ...]
    dtype: str


class TextSpace(NamedTuple):
    """Text of at most ``max_length`` characters."""

    max_length: int


class EnvSpaces(NamedTuple):
    """Observations by name, the action, and the steps after which an episode ends at the latest."""

    observations: dict[str, ArraySpace | TextSpace]
    action: ArraySpace
    max_steps: int


def describe_spaces(env: gym.Env) -> EnvSpaces:
    """The spaces of ``env``; an observation that is no ``Dict`` goes by the name ``obs``.

    Raises:
        UserError: an observation is neither ``Box`` nor ``Text``, or the action is no ``Box``.
    """
    space = env.observation_space
    spaces = space.spaces if isinstance(space, gym.spaces.Dict) else {"obs": space}
    return EnvSpaces(
        {key: _describe(f"observation {key!r}", each) for key, each in spaces.items()},
        _describe_action(env.action_space),
        step_limit(env) or DEFAULT_MAX_STEPS,
    )


def _describe(name: str, space: gym.Space) -> ArraySpace | TextSpace:
    match space:
        case gym.spaces.Box():
            return ArraySpace(space.shape, space.dtype.str)
        case gym.spaces.Text():
            return TextSpace(space.max_length)
    raise UserError(f"{name} of the environment is {space}; wrap it to give Box or Text")


def _describe_action(space: gym.Space) -> ArraySpace:
    if not isinstance(space, gym.spaces.Box):
        raise UserError(f"the action of the environment is {space}; wrap it to take a Box")
    return ArraySpace(space.shape, space.dtype.str)
