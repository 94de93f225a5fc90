"""From the ``policy`` section of a config to a policy."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.spec.task_spec import TaskSpec


def build_policy(config: DictConfig, spec: TaskSpec | None) -> BasePolicy:
    """The policy that a config describes.

    Args:
        config: the section.
        spec: what the policy sees, in place of the section's ``shape_meta``: that is the task's,
            and transforms may lie between. None leaves it as it is.
    """
    seen = {"shape_meta": spec} if spec is not None and "shape_meta" in config else {}
    return hydra.utils.instantiate(config, **seen, _convert_="object")  # or a spec would be a dict
