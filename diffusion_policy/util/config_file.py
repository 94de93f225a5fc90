"""Read YAML that came in a file as plain data: it may come from anybody.

OmegaConf reads the environment and calls resolvers where a value holds ``${...}``, and YAML can
describe, in a few lines, more than fits into memory. A config that a run wrote holds values alone.
In one that was written by hand, a value may be the ``${key}`` of another, which is put in its place
here. A reader refuses all else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException

from diffusion_policy.util.config import shown
from diffusion_policy.util.errors import UserError, one_line

MAX_CHARACTERS = 2_000_000
MAX_VALUES = 50_000
MAX_DEPTH = 50
"""What a file may hold. A config has some 200 values, 6 deep; a list of starts some thousands."""
_REFERENCE = re.compile(r"\$\{(\w+(?:\.\w+)*)\}")
_LONG_NUMBER = re.compile(r"[-+.]?\d[\w.:+-]{400,}")  # longer than any float, and slow to read
_LARGEST_INT = 2**63 - 1


def read_config(path: Path) -> DictConfig:
    """The config in a YAML file.

    Raises:
        UserError: it cannot be read, or is more than plain values.
    """
    return _config(read_plain_yaml(path), path)


def parse_config(text: Any, source: object) -> DictConfig:
    """The config in a text that came in a file.

    Args:
        source: where the text stands, for messages.

    Raises:
        UserError: it cannot be read, or is more than plain values.
    """
    if not isinstance(text, str):
        raise _damaged(source, TypeError("its config is no text"))
    return _config(_parse(text, source), source)


def read_plain_yaml(path: Path) -> Any:
    """The dicts, lists and values in a YAML or JSON file.

    Raises:
        UserError: it cannot be read, or is more than plain values.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from None
    return _parse(text, path)


def _config(content: Any, source: object) -> DictConfig:
    content = {} if content is None else content  # an empty text
    if not isinstance(content, dict):
        raise _damaged(source, TypeError("it holds no keys and values"))
    try:
        return OmegaConf.create(content)
    except OmegaConfBaseException as error:  # such as a key that is no name
        raise _damaged(source, error) from None


def _parse(text: str, source: object) -> Any:
    if len(text) > MAX_CHARACTERS:
        raise UserError(
            f"{source} has more than {MAX_CHARACTERS:,} characters, which are not read; no config "
            "of a run is so long, so get the file again"
        )
    try:
        content = yaml.load(text, Loader=_PlainLoader)
        content = _without_references(content)
    except (yaml.YAMLError, ValueError) as error:
        raise _damaged(source, error) from None
    require_plain(content, source)
    return content


def _without_references(root: Any) -> Any:
    """Values in place of the ``${key}`` of another; one that leads nowhere or in a circle stays."""
    n_values = n_characters = 0

    def resolved(node: Any, followed: tuple[str, ...], depth: int) -> Any:
        nonlocal n_values, n_characters
        n_values += 1
        n_characters += len(node) if isinstance(node, str) else 0
        if n_values > MAX_VALUES or n_characters > MAX_CHARACTERS or depth > MAX_DEPTH:
            raise ValueError(
                f"its references make more than {MAX_VALUES:,} values, {MAX_CHARACTERS:,} "
                f"characters, or a value more than {MAX_DEPTH} deep"
            )
        if isinstance(node, dict):
            return {key: resolved(value, followed, depth + 1) for key, value in node.items()}
        if isinstance(node, list):
            return [resolved(value, followed, depth + 1) for value in node]
        reference = _REFERENCE.fullmatch(node) if isinstance(node, str) else None
        if reference is None or reference[1] in followed or len(followed) == MAX_DEPTH:
            return node
        target = root
        for name in reference[1].split("."):
            if not isinstance(target, dict) or name not in target:
                return node
            target = target[name]
        return resolved(target, (*followed, reference[1]), depth)

    return resolved(root, (), 0)


def require_plain(content: Any, source: object, key: str = "") -> None:
    """Refuse interpolations in dicts, lists and values, and numbers that no setting can have.

    Args:
        source: where they come from, for messages.
        key: full key of ``content``.

    Raises:
        UserError: names key and value.
    """
    for name, value in _values(content, key):
        if isinstance(value, str) and "${" in value:
            raise UserError(
                f"{source}: {name} is {shown(value)}, an interpolation, which could read your "
                "environment or choose other code than was checked; write its value there"
            )
        if isinstance(value, int) and abs(value) > _LARGEST_INT:
            raise UserError(f"{source}: {name} is {shown(value)}; use a number of 64 bits")


def _damaged(source: object, error: Exception) -> UserError:
    return UserError(f"{source} is damaged ({one_line(error)[:200]}); get the file again")


def _values(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every value and every name of a key, with its full key."""
    if isinstance(node, dict):
        for name, item in node.items():
            inner = f"{key}.{name}" if key else str(name)
            yield inner, name
            yield from _values(item, inner)
    elif isinstance(node, list):
        for i, item in enumerate(node):
            yield from _values(item, f"{key}[{i}]")
    else:
        yield key, node


class _PlainLoader(get_yaml_loader()):  # type: ignore[misc]  # types of values as OmegaConf reads them
    """Refuses whatever makes a small text large or strange: aliases, tags, depth, long numbers."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._n_values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        self._require(not isinstance(event, yaml.AliasEvent), "an alias (*name)", event)
        self._require(getattr(event, "tag", None) is None, "a tag (!name)", event)
        self._require(self._depth < MAX_DEPTH, f"a value more than {MAX_DEPTH} deep", event)
        self._n_values += 1
        self._require(self._n_values <= MAX_VALUES, f"more than {MAX_VALUES:,} values", event)
        if isinstance(event, yaml.ScalarEvent):
            is_long = _LONG_NUMBER.fullmatch(event.value)
            self._require(not is_long, f"a number of {len(event.value):,} digits", event)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _require(self, condition: bool, what: str, event: yaml.Event) -> None:
        if not condition:
            line = event.start_mark.line + 1
            raise yaml.YAMLError(f"line {line} holds {what}, which is not read")
