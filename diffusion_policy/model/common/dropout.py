"""Dropout whose masks cost little on the CPU.

torch draws one random number an element on the CPU, on one thread; for a small transformer
that is more than a quarter of a training step. Here one 64-bit draw gives eight masks. The
probability is rounded to a multiple of 1/256 and the kept values are scaled by that exact
probability, so expectations stay right.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 256  # values of one random byte
_INT64_MIN = torch.iinfo(torch.int64).min


def dropout_mask(x: Tensor, p: float) -> Tensor:
    """Random multipliers of the shape and dtype of ``x``: 0 with probability ``p``, else 1/(1-p).

    Draws from torch's global CPU generator.
    """
    threshold = round(p * _LEVELS)
    draws = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(_INT64_MIN, None)
    levels = draws.view(torch.uint8)[: x.numel()].view(x.shape)
    # Comparing into the final type is vectorised; torch.where and casts of bool are not: 8 times
    # the cost.
    kept = torch.ge(levels, threshold, out=torch.empty_like(x, requires_grad=False))
    return kept.mul_(_LEVELS / (_LEVELS - threshold))


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero elements of ``x`` with probability ``p`` in training and scale up the others."""
    if not training or p == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    return x * dropout_mask(x, p)


class Dropout(nn.Module):
    """:func:`dropout` as a module; ``p`` in [0, 1)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout is {p}; use a probability in [0, 1)")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)

    def add(self, residual: Tensor, x: Tensor) -> Tensor:
        """``residual + dropout(x)`` in one pass over memory."""
        if not self.training or self.p == 0.0:
            return residual + x
        if x.device.type != "cpu":
            return residual + F.dropout(x, self.p)
        return torch.addcmul(residual, x, dropout_mask(x, self.p).to(residual.dtype))
