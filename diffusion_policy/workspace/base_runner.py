"""The contract of whatever scores a policy during training. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from diffusion_policy.agent.agent import Agent


class BaseRunner(ABC):
    """Runs an agent in a task and reports how well it did.

    Attributes:
        settings_without_effect: constructor arguments, by convention of these names in every
            runner, that change no score: two runs that differ in them alone are the same.
        debug_settings: constructor arguments, and their values, of a run of a minute
            (``training.debug``).
    """

    settings_without_effect: ClassVar[tuple[str, ...]] = (
        "n_workers",
        "n_envs",
        "n_train_vis",
        "n_test_vis",
        "fps",
        "outcomes",
        "timeout_s",
    )
    debug_settings: ClassVar[Mapping[str, Any]] = {}

    @abstractmethod
    def run(self, agent: Agent, label: str | None = None) -> dict[str, Any]:
        """Score ``agent``, which is left as it was found.

        Args:
            label: names this run among those of the same training, e.g. in file names.

        Returns:
            Numbers and paths to log, by name.
        """

    @abstractmethod
    def close(self) -> None:
        """Release processes and files; may be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
