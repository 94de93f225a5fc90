"""The contract of whatever scores a policy during training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

from diffusion_policy.agent.agent import Agent


class BaseRunner(ABC):
    """Runs a policy in a task and reports how well it did."""

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
