"""A benchmark case: work to time, and a check of its result."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Options:
    """Options that every case receives.

    Attributes:
        scratch: folder for data that takes time to make; later runs use it again.
        demos: PushT demonstrations with images; None makes some from the scripted ones.
        tiny: use sizes that take milliseconds, to check that a case works; ignore its figure.
    """

    scratch: Path
    demos: Path | None = None
    tiny: bool = False

    def size(self, full: int, tiny: int) -> int:
        """Return ``full``, or ``tiny`` with the tiny option."""
        return tiny if self.tiny else full


@dataclass(frozen=True)
class Work:
    """A prepared case.

    Attributes:
        run: does the work; in a case that does not measure time, it returns the figure.
        check: compares the result of ``run``, or of the same computation on less data, with a slow
            and simple computation; raises AssertionError.
        amount: units of work per run.
    """

    run: Callable[[], Any]
    check: Callable[[Any], None]
    amount: float = 1


Prepare = Callable[[Options], AbstractContextManager[Work]]

SECONDS = {"s": 1.0, "ms": 1e3}
"""Units of time, with their number per second."""


@dataclass(frozen=True)
class Case:
    """A named figure.

    Attributes:
        name: ``<subject>.<case>``.
        what: description in the table.
        unit: one of :data:`SECONDS` for the time of a run, ``.../s`` for work per second, or
            anything else for a figure that ``run`` returns.
        prepare: makes the work, in a context that cleans up.
        reference: the figure of the public Diffusion Policy code on two cores, if known.
        target: the required ratio to the reference; without a reference, the required figure.
        max_repeats: limit of repetitions for work that takes minutes; None sets no limit.
        series, size: cases that do the same work at several sizes share a series.
        slow: too slow for the tests, even with the tiny option.
    """

    name: str
    what: str
    unit: str
    prepare: Prepare
    reference: float | None = None
    target: float | None = None
    max_repeats: int | None = None
    series: str | None = None
    size: float | None = None
    slow: bool = False

    @property
    def is_rate(self) -> bool:
        """Return whether a higher figure is better."""
        return self.unit.endswith("/s")

    def figure(self, seconds: float, amount: float, result: Any) -> float:
        """Return the figure of one run."""
        if self.is_rate:
            return amount / seconds
        if self.unit in SECONDS:
            return seconds / amount * SECONDS[self.unit]
        return float(result)

    def times_better(self, figure: float) -> float | None:
        """Return how many times better than the reference a figure is; None without a reference."""
        if self.reference is None:
            return None
        return figure / self.reference if self.is_rate else self.reference / figure


CASES: dict[str, Case] = {}
"""All cases by name, in the order of definition."""


def case(name: str, what: str, unit: str, **facts: Any) -> Callable:
    """Register a generator function ``(options, ...) -> Work`` as a case.

    The function yields its work once and cleans up after the yield. ``arguments`` binds its other
    arguments; all other ``facts`` are attributes of :class:`Case`.
    """

    def register(function: Callable[..., Iterator[Work]]) -> Callable[..., Iterator[Work]]:
        assert name not in CASES, name
        bound = functools.partial(function, **facts.pop("arguments", {}))
        CASES[name] = Case(name, what, unit, contextmanager(bound), **facts)
        return function

    return register


def each(*registrations: Callable) -> Callable:
    """Register a function as several cases in this order; stacked decorators would reverse it."""

    def register(function: Callable[..., Iterator[Work]]) -> Callable[..., Iterator[Work]]:
        for registration in registrations:
            registration(function)
        return function

    return register
