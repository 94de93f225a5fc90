"""What a config that came in a file may build: this package's own parts and nothing else.

A config names classes, and instantiating one runs it. What is typed on the command line is the
user's own word; what a checkpoint brings along is not. docs/security.md tells the rules.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import hydra
from omegaconf import DictConfig, OmegaConf

from diffusion_policy.util.config import plain, shown
from diffusion_policy.util.config_file import require_plain
from diffusion_policy.util.errors import UserError


class _Section(NamedTuple):
    """What a section may build.

    Attributes:
        base: class that ``_target_`` of the section itself must derive from.
        packages: where classes lie.
        parts: classes that those named further inside must derive from, one of them.
        paths: arguments that name a place to write, which the user chooses and no file.
    """

    base: str
    packages: tuple[str, ...]
    parts: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


# Only these packages: classes elsewhere write to paths that they are given, or start processes.
_SECTIONS = {
    "policy": _Section(
        "BasePolicy",
        ("diffusion_policy.policy.", "diffusion_policy.model."),
        parts=("ObsEncoder", "Process"),
    ),
    "task.env_runner": _Section(
        "BaseRunner", ("diffusion_policy.env_runner.",), paths=("output_dir",)
    ),
    # The mirror of a task lies beside its environment.
    "task.transforms": _Section(
        "Transform", ("diffusion_policy.transforms.", "diffusion_policy.env.")
    ),
    # The following are built to go on with a run alone.
    "task.dataset": _Section(
        "BaseDataset",
        ("diffusion_policy.dataset.", "diffusion_policy.env."),
        parts=("BaseDataset", "EpisodeStore", "BaseMirror"),
    ),
    "optimizer": _Section("Optimizer", ("torch.optim.",)),
    "ema": _Section("EMAModel", ("diffusion_policy.model.",)),
}
_ENVIRONMENT = re.compile(r"diffusion_policy/\w+-v\d+")  # no "module:", which gymnasium imports
_REMEDY = (
    "if you trust whoever made the file with your account and files, use --trust-checkpoint "
    "(trust=True in Python)"
)


def section_to_build(cfg: DictConfig, section: str, *, trust: bool) -> Any:
    """A section of a config that came in a file, as plain data to build it from.

    Build from what this returns and nothing else, since that is what was checked.

    Args:
        section: such as ``policy``; ``task.transforms`` is a list, which may be missing.
        trust: check nothing.

    Raises:
        UserError: building it would not run this package's code alone; names the entry, and how to
            go on all the same.
    """
    if not trust:
        return check_trusted(cfg, section)
    return plain(OmegaConf.select(cfg, section, throw_on_missing=True))


def check_trusted(cfg: DictConfig, section: str) -> Any:
    """:func:`section_to_build` of a file that nobody trusts."""
    rule = _SECTIONS[section]
    content = plain(OmegaConf.select(cfg, section, throw_on_missing=True))
    # Resolving one may have brought another to life.
    require_plain(content, "the checkpoint's config", section)
    if section == "task.transforms":
        if not isinstance(content, list | None):
            raise UserError(f"the checkpoint's {section} is {shown(content)}; it must be a list")
        for i, entry in enumerate(content or ()):
            _check_classes(entry, f"{section}[{i}]", rule)
        return content
    _check_classes(content, section, rule)
    if section == "task.env_runner":
        _check_environment(content.get("env"), f"{section}.env")
    return content


def check_run_trusted(cfg: DictConfig) -> None:
    """:func:`check_trusted` of every section of a run's config that is there."""
    for section in _SECTIONS:
        if OmegaConf.select(cfg, section) is not None:
            check_trusted(cfg, section)


def check_group_trusted(groups: Mapping[str, Any] | None, name: str) -> None:
    """Refuse a group of starts of a file that reads another file.

    Args:
        groups: ``task.env_runner.groups`` of the file.
        name: of the group, or of something else.

    Raises:
        UserError: names the path that the group would read.
    """
    group = (groups or {}).get(name)
    for key in ("episodes", "starts"):
        path = group.get(key) if isinstance(group, Mapping) else None
        if isinstance(path, str):
            raise UserError(
                f"the checkpoint's task.env_runner.groups.{name}.{key} is the path {path!r}, which "
                f"the file chose; give it yourself: --starts {path}; or {_REMEDY}"
            )


def needs_trust(cfg: DictConfig) -> bool:
    """Whether evaluating a checkpoint of this config builds more than this package's own parts."""
    try:
        for section in ("policy", "task.transforms", "task.env_runner"):
            if OmegaConf.select(cfg, section) is not None:
                check_trusted(cfg, section)
    except UserError:
        return True
    return False


def _check_classes(content: Any, name: str, rule: _Section) -> None:
    if not isinstance(content, dict) or "_target_" not in content:
        raise UserError(f"the checkpoint's config names no class at {name}._target_")
    for key, section in _sections(content, name):
        is_top = key == name
        if "_target_" in section:
            _check_class(key, section["_target_"], (rule.base,) if is_top else rule.parts, rule)
        for argument, value in section.items():
            where = f"the checkpoint's {key}.{argument}"
            if argument.startswith("_") and argument not in (
                ("_target_",) if is_top else ("_target_", "_partial_")
            ):
                raise UserError(f"{where} changes how Hydra builds the section; {_REMEDY}")
            if argument in rule.paths and value is not None:
                raise UserError(
                    f"{where} is {shown(value)}, a place that the file chose; {_REMEDY}"
                )


def _sections(node: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every dict in plain data, with its full key."""
    if isinstance(node, dict):
        yield key, node
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for name, value in items:
        if isinstance(value, dict | list):
            yield from _sections(value, f"{key}.{name}")


def _check_class(key: str, target: Any, bases: tuple[str, ...], rule: _Section) -> None:
    if not _is_own_class(target, bases, rule.packages):
        kind = " or ".join(bases) or "part"
        package = rule.packages[0].partition(".")[0]
        raise UserError(
            f"the checkpoint's {key}._target_ is {target!r}, no {kind} of {package}; {_REMEDY}"
        )


def _is_own_class(target: Any, bases: tuple[str, ...], packages: tuple[str, ...]) -> bool:
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
        and not {parent.__name__ for parent in inspect.getmro(found)}.isdisjoint(bases)
        and f"{found.__module__}.".startswith(packages)
    )


def _check_environment(spec: Any, key: str) -> None:
    if not isinstance(spec, dict) or not spec.keys() <= {"id", "kwargs"}:
        raise UserError(f"the checkpoint's {key} is {spec}, which could run any code; {_REMEDY}")
    if not _ENVIRONMENT.fullmatch(str(spec.get("id"))):
        raise UserError(
            f"the checkpoint's {key}.id is {spec.get('id')!r}, no environment of "
            f"diffusion_policy; {_REMEDY}"
        )
