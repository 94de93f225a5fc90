"""Convert configs to plain data: nested containers, or one flat table to compare."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_policy.util.errors import UserError
from diffusion_policy.util.meant import known_names


def config_leaves(cfg: DictConfig) -> dict[str, Any]:
    """Return the resolved values of a config by full key; a list counts as one value."""

    def walk(node: Any, prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in node.items():
            key = f"{prefix}{name}"
            found |= walk(value, f"{key}.") if isinstance(value, dict) and value else {key: value}
        return found

    # Through YAML text, as a saved config went, so that both have the same types.
    return walk(OmegaConf.to_container(OmegaConf.create(OmegaConf.to_yaml(cfg, resolve=True))), "")


def shown(value: Any) -> str:
    """Return a value as messages quote it: in plain lists and dicts, cut to 80 characters."""
    text = repr(plain(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def plain(value: Any) -> Any:
    """Copy a config into dicts, lists and scalars; Hydra passes its own container classes."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return value


def require_known(section: str, content: Iterable[str], known: Collection[str]) -> None:
    """Refuse keys that nothing reads: a misspelt one would leave its setting at the default.

    Args:
        section: full key of ``content``, which has these keys; empty for the whole config.

    Raises:
        UserError: names the key and those that are known.
    """
    for key in content:
        if key not in known:
            name = f"{section}.{key}" if section else key
            raise UserError(f"config key {name} is unknown; {known_names(key, known, section)}")


def arguments_of(target: str) -> list[str] | None:
    """Names of the arguments that a class or function takes, whatever it passes them on to.

    A class whose ``**kwargs`` are arguments of another one names it as ``further_settings_of``.

    Args:
        target: full name, as ``_target_`` gives it; it is imported.

    Returns:
        None where that is not known: it takes any arguments, does not exist or is no Python code.
    """
    from hydra.utils import get_object

    try:
        return _arguments(get_object(target))
    except Exception:  # whatever importing a module of the user's own raises; building it tells
        return None


def _arguments(called: Any) -> list[str] | None:
    parameters = inspect.signature(called).parameters.values()
    names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    if len(names) == len(parameters):
        return names
    # That of the class whose constructor it is: a subclass may pass other arguments on.
    parents = inspect.getmro(called) if inspect.isclass(called) else ()
    owner = next((parent for parent in parents if "__init__" in vars(parent)), None)
    further = getattr(owner, "__dict__", {}).get("further_settings_of")
    others = None if further is None else _arguments(further)
    return None if others is None else list(dict.fromkeys([*names, *others]))


def class_sections(node: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every section of a config that names a class, by its full key.

    Args:
        node: in dicts, lists and scalars, see :func:`plain`.
        key: full key of ``node``.
    """
    if isinstance(node, dict) and "_target_" in node:
        yield key, node
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for name, value in items:
        if isinstance(value, dict | list):
            yield from class_sections(value, f"{key}.{name}")


def declared(cfg: DictConfig, section: str, attribute: str) -> Iterator[tuple[str, Any]]:
    """What the classes that a section names declare in ``attribute``, with the keys of their
    sections.

    The classes are imported. One that does not exist is left to whoever builds it.
    """
    from hydra.utils import get_object

    content = plain(OmegaConf.select(cfg, section))
    for key, named in class_sections(content, section) if isinstance(content, dict) else ():
        try:
            found = get_object(named["_target_"])
        except (ImportError, AttributeError, ValueError, TypeError):
            continue
        if hasattr(found, attribute):
            yield key, getattr(found, attribute)
