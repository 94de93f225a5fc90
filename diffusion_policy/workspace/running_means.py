"""Means of named values over optimiser steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any


class RunningMeans:
    """Means over the steps that were added since :meth:`clear`.

    A value's mean is over the steps that had it.
    """

    def __init__(self) -> None:
        self.clear()

    def add(self, values: Mapping[str, float]) -> None:
        """Count the values of one step."""
        for name, value in values.items():
            self._sums[name] += value
            self._counts[name] += 1

    def means(self) -> dict[str, float]:
        return {name: value / self._counts[name] for name, value in self._sums.items()}

    def clear(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._counts: defaultdict[str, int] = defaultdict(int)

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.clear()
        self._sums.update(state["sums"])
        self._counts.update(state["counts"])
