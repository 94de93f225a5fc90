"""Random numbers of a training batch that do not depend on the number of processes.

Inside :func:`batch_randomness` every process draws for the whole batch from a generator with the
same seed, and keeps its own rows. Outside, the functions draw as torch does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class _Source:
    start: int
    stop: int
    total: int
    seed: int
    generators: dict[torch.device, torch.Generator] = field(default_factory=dict)

    def generator(self, device: torch.device) -> torch.Generator:
        if device not in self.generators:
            self.generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self.generators[device]

    def draw(
        self, function: Callable[..., Tensor], shape: Sequence[int], device: torch.device
    ) -> Tensor:
        generator = self.generator(device)
        if not shape:  # one number for all rows
            return function((), generator=generator, device=device)
        per_row, rest = divmod(shape[0], self.stop - self.start)
        if rest or not per_row:
            raise ValueError(
                f"cannot draw shape {tuple(shape)} for the {self.stop - self.start} rows of this "
                "process; make the first dimension rows, or rows x times"
            )
        whole = function((self.total * per_row, *shape[1:]), generator=generator, device=device)
        return whole[self.start * per_row : self.stop * per_row]


_source: _Source | None = None


@contextmanager
def batch_randomness(start: int, stop: int, total: int, seed: int) -> Iterator[None]:
    """Make draws in the block belong to rows ``start`` to ``stop`` of a batch of ``total`` rows.

    Args:
        seed: seed of the batch, from 0 to 2**64 - 1.
    """
    global _source
    before, _source = _source, _Source(start, stop, total, seed)
    try:
        yield
    finally:
        _source = before


def randn(shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Draw standard normal numbers; the first dimension, if any, is rows or rows x times."""
    return _draw(torch.randn, shape, device)


def rand(shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Draw uniform numbers in [0, 1); shape as in :func:`randn`."""
    return _draw(torch.rand, shape, device)


def randint(high: int, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Draw uniform int64 numbers in [0, high); shape as in :func:`randn`."""

    def function(size: Sequence[int], **options: Any) -> Tensor:
        return torch.randint(high, size, **options)

    return _draw(function, shape, device)


@torch.compiler.disable
def _draw(
    function: Callable[..., Tensor], shape: Sequence[int], device: torch.device | str
) -> Tensor:
    if _source is None:
        return function(tuple(shape), device=device)
    return _source.draw(function, shape, torch.device(device))
