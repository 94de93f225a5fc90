"""From the ``policy`` section of a config to a policy."""

from __future__ import annotations

import copy

import hydra
from omegaconf import DictConfig

from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.spec.task_spec import TaskSpec


def build_policy(config: DictConfig, spec: TaskSpec | None) -> BasePolicy:
    """The policy that a config describes.

    Args:
        config: the section.
        spec: what the policy sees. It takes the place of the section's ``shape_meta``, which is the
            task's: transforms may lie between. None leaves that as it is.
    """
    if spec is None or "shape_meta" not in config:
        return hydra.utils.instantiate(config)
    config = copy.deepcopy(config)
    config.shape_meta = None  # Hydra would merge the two
    # A dataclass arrives as itself only if told so.
    return hydra.utils.instantiate(config, shape_meta=spec, _convert_="object")
