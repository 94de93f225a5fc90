"""A config of another project, taken entry by entry so that none is overlooked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from diffusion_policy.util.config import shown
from diffusion_policy.util.errors import UserError

_REQUIRED = object()


class ForeignSection:
    """A section of the config in a checkpoint. Each entry is taken once; finish() refuses the rest.

    Args:
        name: of the section, for messages.
        entries: resolved dicts, lists and values.

    Raises:
        UserError: ``entries`` is no dict; the methods raise it for an entry that does not fit.
    """

    def __init__(self, name: str, entries: Any) -> None:
        if not isinstance(entries, Mapping):
            raise UserError(
                f"the checkpoint's {name} is {shown(entries)} and not a section, so it comes from "
                "another program; import checkpoints of Diffusion Policy"
            )
        self.name = name
        self.entries = dict(entries)

    def take(self, key: str, kinds: type | tuple[type, ...], default: Any = _REQUIRED) -> Any:
        """The entry, whose type must be one of ``kinds``; ``default`` where it is absent."""
        value = self.entries.pop(key, default)
        if value is _REQUIRED:
            raise UserError(f"the checkpoint has no {self.name}.{key}, so it cannot be imported")
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        # Exactly: True is an int, too.
        if value is not default and type(value) not in kinds:
            expected = " or ".join(kind.__name__ for kind in kinds)
            self.refuse(key, value, f"a resolved config has {expected} there")
        return value

    def take_one_of(self, key: str, choices: tuple[Any, ...], default: Any) -> Any:
        """The entry, which must be one of ``choices``."""
        value = self.entries.pop(key, default)
        if value not in choices:
            known = ", ".join(shown(choice) for choice in choices)
            self.refuse(key, value, f"only {known} can be imported")
        return value

    def take_sizes(self, key: str, default: list[int]) -> list[int]:
        """The entry, which must be a list of whole numbers."""
        sizes = self.take(key, list, default)
        if not all(type(size) is int for size in sizes):
            self.refuse(key, sizes, "a resolved config has whole numbers there")
        return sizes

    def section(self, key: str) -> ForeignSection:
        """The section inside this one."""
        return ForeignSection(f"{self.name}.{key}", self.entries.pop(key, None))

    def drop(self, *keys: str) -> None:
        """Leave out entries that follow from others; the shapes of the weights check them."""
        for key in keys:
            self.entries.pop(key, None)

    def finish(self) -> None:
        """Refuse what was not taken."""
        for key, value in self.entries.items():
            self.refuse(key, value, "this setting is unknown, so it cannot be imported")

    def refuse(self, key: str, value: Any, remedy: str) -> NoReturn:
        """Raise the UserError about an entry."""
        raise UserError(f"the checkpoint's {self.name}.{key} is {shown(value)}; {remedy}")
