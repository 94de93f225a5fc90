"""Where an episode begins."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusion_policy.util.config import plain
from diffusion_policy.util.errors import UserError

MAX_SEED = 2**32 - 1
"""The largest seed that all generators of numpy accept."""


@dataclass(frozen=True)
class Start:
    """The beginning of one episode: a fresh seed, or a given initial state.

    Attributes:
        group: episodes of a group are scored together.
        name: identifies the start within its group: in logs, reports and names of videos.
        seed: of the environment's ``reset``, and of a policy that draws random numbers.
        options: plain data for the environment's ``reset``; ``{"state": ...}`` by convention for an
            environment that can begin from a simulator state. None gives none.

    Raises:
        UserError: group or name cannot be part of a file name, or the seed is negative.
    """

    group: str
    name: str
    seed: int
    options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for kind, text in (("group", self.group), ("name", self.name)):
            if not re.fullmatch(r"[\w.=-]+", text):
                raise UserError(
                    f"the {kind} of a start is {text!r}; use letters, digits and _ . = -, since "
                    "videos are named after it"
                )
        if type(self.seed) is not int or not 0 <= self.seed <= MAX_SEED:
            raise UserError(
                f"the seed of start {self.group} {self.name} is {self.seed!r}; use a whole number "
                f"from 0 to {MAX_SEED}"
            )
        if self.options is not None and not isinstance(self.options, Mapping):
            raise UserError(
                f"the options of start {self.group} {self.name} are {self.options!r}; give keys "
                "and values, as in {state: [...]}"
            )
        object.__setattr__(self, "options", plain(self.options))

    @classmethod
    def of_seed(cls, group: str, seed: int) -> Start:
        """A start that the environment draws from ``seed``; its name is the seed as text."""
        return cls(group, str(seed), seed)

    @property
    def label(self) -> str:
        """How messages and reports name the start: ``seed 100000`` or ``corners left``."""
        return f"seed {self.seed}" if self.name == str(self.seed) else f"{self.group} {self.name}"

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Start:
        """The start of an episode of ``eval_info.json``; early files hold its seed alone."""
        seed = record["seed"]
        return cls(record.get("group") or "test", record.get("name") or str(seed), seed)
