"""Random numbers of a training batch, the same however processes divide the batch.

Inside :func:`batch_randomness` each process draws for the whole batch, from a generator that starts
alike in all of them, and keeps its own rows. Outside, the functions are those of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

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
                f"a draw of shape {tuple(shape)} is none for the {self.stop - self.start} rows of "
                "this process; its first dimension is rows, or rows x times"
            )
        whole = function((self.total * per_row, *shape[1:]), generator=generator, device=device)
        return whole[self.start * per_row : self.stop * per_row]


_source: _Source | None = None


@contextmanager
def batch_randomness(start: int, stop: int, total: int, seed: int) -> Iterator[None]:
    """In the block: draws belong to rows ``start`` to ``stop`` of a batch of ``total`` rows.

    Args:
        seed: of the batch, from 0 to 2**64 - 1.
    """
    global _source
    before, _source = _source, _Source(start, stop, total, seed)
    try:
        yield
    finally:
        _source = before


def randn(shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Standard normal numbers; the first dimension is rows, or rows x times, or there is none."""
    return _draw(torch.randn, shape, device)


def rand(shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Uniform numbers in [0, 1); shape as in :func:`randn`."""
    return _draw(torch.rand, shape, device)


def randint(high: int, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Uniform int64 numbers in [0, high); shape as in :func:`randn`."""

    def function(size: Sequence[int], **options: object) -> Tensor:
        return torch.randint(high, size, **options)

    return _draw(function, shape, device)


@torch.compiler.disable
def _draw(
    function: Callable[..., Tensor], shape: Sequence[int], device: torch.device | str
) -> Tensor:
    if _source is None:
        return function(tuple(shape), device=device)
    return _source.draw(function, shape, torch.device(device))
