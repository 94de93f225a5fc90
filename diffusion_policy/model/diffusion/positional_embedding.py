"""The noise level, or flow time, as a vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffusion_policy.util.errors import require

LONGEST_PERIOD = 10_000.0
"""Ratio of the slowest to the fastest period (Vaswani et al. 2017, section 3.5)."""


def batch_of_timesteps(timestep: Tensor | float, sample: Tensor) -> Tensor:
    """(B,) float32 times on the device of ``sample`` (B, ...), from B times or a single one."""
    # Flow matching has fractional times, so nothing here may round them.
    times = torch.as_tensor(timestep, dtype=torch.float32, device=sample.device)
    return times.expand(len(sample))


class SinusoidalPosEmb(nn.Module):
    """Times (B,) -> (B, dim): sines in the first half, cosines of the same angles in the second.

    Args:
        dim: even and at least 4.
        field: name of the setting behind ``dim``, for the error.

    Raises:
        UserError: ``dim`` is odd or too small.
    """

    def __init__(self, dim: int, field: str) -> None:
        super().__init__()
        fits = dim >= 4 and dim % 2 == 0
        require(fits, f"policy.{field}", dim, "use an even number of at least 4")
        self.n_frequencies = dim // 2

    def forward(self, times: Tensor) -> Tensor:
        # Not a buffer, whose digits a cast of the network would cut off.
        exponent = torch.arange(self.n_frequencies, device=times.device)
        step = -math.log(LONGEST_PERIOD) / (self.n_frequencies - 1)
        angles = times[:, None] * torch.exp(exponent * step)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)
