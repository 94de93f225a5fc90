"""What a config that came in a file may build: this package's own parts and nothing else.

A config names classes, and instantiating one runs it. What is typed on the command line is the
user's own word; what a checkpoint brings along is not.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import hydra
from omegaconf import DictConfig, OmegaConf

from diffusion_policy.util.config import plain, targets
from diffusion_policy.util.errors import UserError


class _Section(NamedTuple):
    """What a section may build.

    Attributes:
        base: class that ``_target_`` of the section itself must derive from.
        packages: where that class lies.
        parts: where classes named further inside lie.
    """

    base: str
    packages: tuple[str, ...]
    parts: tuple[str, ...]


# Only these packages: classes elsewhere write to paths that they are given, or start processes.
_MODEL = ("diffusion_policy.policy.", "diffusion_policy.model.")
_RUNNER = ("diffusion_policy.env_runner.",)
_TRANSFORMS = ("diffusion_policy.transforms.",)
_SECTIONS = {
    "policy": _Section("BasePolicy", _MODEL, _MODEL),
    "task.env_runner": _Section("BaseRunner", _RUNNER, _RUNNER),
    # The mirror of a task lies beside its environment.
    "task.transforms": _Section("Transform", (*_TRANSFORMS, "diffusion_policy.env."), _TRANSFORMS),
}
_ENVIRONMENTS = "diffusion_policy/"
_REMEDY = (
    "if you trust whoever made the file with your account and files, use --trust-checkpoint "
    "(trust=True in Python)"
)


def check_trusted(cfg: DictConfig, section: str) -> None:
    """Refuse a section of a config unless building it runs this package's code alone.

    Args:
        section: ``policy``, ``task.env_runner`` or ``task.transforms``, a list that may be missing.

    Raises:
        UserError: names the entry, and how to go on all the same.
    """
    rule = _SECTIONS[section]
    content = plain(OmegaConf.select(cfg, section, throw_on_missing=True))
    if section == "task.transforms":
        for i, entry in enumerate(content or ()):
            _check_classes(entry, f"{section}[{i}]", rule)
        return
    _check_classes(content, section, rule)
    if section == "task.env_runner":
        _check_environment(content.get("env"), f"{section}.env")


def _check_classes(content: Any, name: str, rule: _Section) -> None:
    if not isinstance(content, dict) or "_target_" not in content:
        raise UserError(f"the checkpoint's config names no class at {name}._target_")
    for key, target in targets(content, name):
        is_top = key == name
        base, packages = (rule.base, rule.packages) if is_top else ("object", rule.parts)
        if not _is_own_class(target, base, packages):
            kind = "class" if base == "object" else base
            raise UserError(
                f"the checkpoint's {key}._target_ is {target!r}, no {kind} of diffusion_policy; "
                f"{_REMEDY}"
            )


def _is_own_class(target: Any, base: str, packages: tuple[str, ...]) -> bool:
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
        and base in {parent.__name__ for parent in inspect.getmro(found)}
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
