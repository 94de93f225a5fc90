"""From the ``policy`` section of a config to a policy."""

from __future__ import annotations

import copy
from typing import Any

import hydra
from omegaconf import DictConfig

from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.spec.window import Window
from diffusion_policy.util.errors import UserError


def build_policy(config: DictConfig, spec: TaskSpec | None) -> BasePolicy:
    """The policy that a config describes.

    Args:
        config: the section.
        spec: what the policy sees. It takes the place of the section's ``shape_meta``, which is the
            task's: transforms may lie between. None leaves that as it is.

    Raises:
        UserError: it is no policy, or one that does not say its window.
    """
    if spec is None or "shape_meta" not in config:
        return _checked(hydra.utils.instantiate(config))
    config = copy.deepcopy(config)
    config.shape_meta = None  # Hydra would merge the two
    # A dataclass arrives as itself only if told so.
    return _checked(hydra.utils.instantiate(config, shape_meta=spec, _convert_="object"))


def _checked(policy: Any) -> BasePolicy:
    name = type(policy).__name__
    if not isinstance(policy, BasePolicy):
        raise UserError(
            f"policy._target_ makes a {name}; name a class that derives from "
            "diffusion_policy.policy.base_policy.BasePolicy"
        )
    if not isinstance(getattr(policy, "window", None), Window):
        raise UserError(f"{name} has no window; set self.window = Window(...) in its constructor")
    return policy
