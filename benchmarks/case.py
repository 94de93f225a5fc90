"""What a benchmark is: work to time, and a check of what it did."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Options:
    """What every case may ask for.

    Attributes:
        scratch: folder for what takes time to make; it may be there from an earlier run.
        demos: PushT demonstrations with pictures; None makes some from the scripted ones.
        tiny: sizes that take milliseconds, to see that a case works; its figure means nothing.
    """

    scratch: Path
    demos: Path | None = None
    tiny: bool = False

    def size(self, full: int, tiny: int) -> int:
        """One of two sizes of the same work."""
        return tiny if self.tiny else full


@dataclass(frozen=True)
class Work:
    """One case made ready.

    Attributes:
        run: the work; of a case that measures no time, it returns the figure.
        check: compares what ``run`` returned, or the same computation on less, with the slow and
            obvious way; raises AssertionError.
        amount: units of work in a run.
    """

    run: Callable[[], Any]
    check: Callable[[Any], None]
    amount: float = 1


Prepare = Callable[[Options], AbstractContextManager[Work]]

SECONDS = {"s": 1.0, "ms": 1e3}
"""Units of time: how many of them are a second."""


@dataclass(frozen=True)
class Case:
    """A named figure.

    Attributes:
        name: ``<subject>.<what>``.
        what: for the table.
        unit: one of :data:`SECONDS` for the time of a run, ``.../s`` for work done in a second, or
            anything else for a figure that ``run`` itself returns.
        prepare: the work, in a context that cleans up.
        reference: the figure of the public Diffusion Policy code on two cores, if known.
        target: how many times better than the reference the figure should be; without a reference,
            the figure itself.
        max_repeats: of work that takes minutes; None leaves it to the runner.
        series, size: cases that are one piece of work at several sizes share a series.
        slow: too slow for the tests even if tiny.
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
        """Whether more is better."""
        return self.unit.endswith("/s")

    def figure(self, seconds: float, amount: float, result: Any) -> float:
        """The figure of one run."""
        if self.is_rate:
            return amount / seconds
        if self.unit in SECONDS:
            return seconds / amount * SECONDS[self.unit]
        return float(result)

    def times_better(self, figure: float) -> float | None:
        """Than the reference; None where there is none."""
        if self.reference is None:
            return None
        return figure / self.reference if self.is_rate else self.reference / figure


CASES: dict[str, Case] = {}
"""Every case by name, in the order of definition."""


def case(name: str, what: str, unit: str, **facts: Any) -> Callable:
    """Register a generator function ``(options, ...) -> Work`` as a case.

    It yields its work once, and cleans up behind the yield. Further arguments of the decorated
    function are bound by ``arguments``; other ``facts`` are attributes of :class:`Case`.
    """

    def register(function: Callable[..., Iterator[Work]]) -> Callable[..., Iterator[Work]]:
        assert name not in CASES, name
        bound = functools.partial(function, **facts.pop("arguments", {}))
        CASES[name] = Case(name, what, unit, contextmanager(bound), **facts)
        return function

    return register


def each(*registrations: Callable) -> Callable:
    """Register a function as several cases, in this order (stacked decorators go bottom up)."""

    def register(function: Callable[..., Iterator[Work]]) -> Callable[..., Iterator[Work]]:
        for registration in registrations:
            registration(function)
        return function

    return register
