"""Positions as sines and cosines (Vaswani et al. 2017, section 3.5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoids(position: Tensor, dim: int) -> Tensor:
    """(n, dim) sines at even and cosines at odd columns of positions (n,), in any unit."""
    frequency = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
    angle = position[:, None] * frequency.to(position.device)
    table = torch.zeros(len(position), dim, device=position.device)
    table[:, 0::2] = torch.sin(angle)
    table[:, 1::2] = torch.cos(angle)
    return table


def sinusoidal_positions(n: int, dim: int) -> Tensor:
    """(n, dim) :func:`sinusoids` of 0, 1, ..., n - 1."""
    return sinusoids(torch.arange(n, dtype=torch.float32), dim)
