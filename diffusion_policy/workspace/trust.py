"""What a config that came in a file may build: this package's own parts and nothing else.

A config names classes, and instantiating one runs it. What is typed on the command line is the
user's own word; what a checkpoint brings along is not.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from diffusion_policy.common.errors import UserError
from diffusion_policy.env_runner.base_runner import BaseRunner
from diffusion_policy.gym_util.make_env import plain
from diffusion_policy.policy.base_policy import BasePolicy

_BASES = {"policy": BasePolicy, "task.env_runner": BaseRunner}
# What may stand within a section. Not the other parts of the package: some write to a path that
# they are given, and a runner builds an environment.
_PARTS = ("diffusion_policy.policy.", "diffusion_policy.model.")
_RUNNERS = ("diffusion_policy.env_runner.",)
_ENVIRONMENTS = "diffusion_policy/"
_REMEDY = (
    "if you trust whoever made the file with your account and files, use --trust-checkpoint "
    "(trust=True in Python)"
)


def check_trusted(cfg: DictConfig, section: str) -> None:
    """Refuse a section of a config unless building it runs this package's code alone.

    Args:
        section: ``policy`` or ``task.env_runner``.

    Raises:
        UserError: names the entry, and how to go on all the same.
    """
    content = plain(OmegaConf.select(cfg, section, throw_on_missing=True))
    if not isinstance(content, dict) or "_target_" not in content:
        raise UserError(f"the checkpoint's config names no class at {section}._target_")
    for key, target in _targets(content, section):
        base = _BASES[section] if key == f"{section}._target_" else object
        if not _is_own_class(target, base, _RUNNERS if base is BaseRunner else _PARTS):
            kind = "class" if base is object else base.__name__
            raise UserError(
                f"the checkpoint's {key} is {target!r}, no {kind} of diffusion_policy; {_REMEDY}"
            )
    if section == "task.env_runner":
        _check_environment(content.get("env"), f"{section}.env")


def _targets(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every ``_target_`` in ``node``, however deep, with its full key."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for name, value in items:
        if name == "_target_":
            yield f"{key}._target_", value
        elif isinstance(value, dict | list):
            yield from _targets(value, f"{key}.{name}")


def _is_own_class(target: Any, base: type, packages: tuple[str, ...]) -> bool:
    # The name first, since looking it up imports its module; then the class that it leads to,
    # since a module also holds what it has imported (diffusion_policy.policy.x.os.system).
    if not isinstance(target, str) or not target.startswith(packages):
        return False
    try:
        found = hydra.utils.get_object(target)
    except Exception:  # whatever is wrong with it, it is no class of ours
        return False
    return (
        inspect.isclass(found)
        and issubclass(found, base)
        and f"{found.__module__}.".startswith(packages)
    )


def _check_environment(spec: Any, key: str) -> None:
    if not isinstance(spec, dict) or "factory" in spec:
        raise UserError(f"the checkpoint's {key} is {spec}, which could run any code; {_REMEDY}")
    if not str(spec.get("id")).startswith(_ENVIRONMENTS):
        raise UserError(
            f"the checkpoint's {key}.id is {spec.get('id')!r}, no environment of "
            f"diffusion_policy; {_REMEDY}"
        )
