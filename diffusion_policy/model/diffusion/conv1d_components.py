"""Parts of the temporal U-Net; all work on (B, C, T), channels before time."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FEW_ROWS = 16  # rows x time steps up to which a matrix product is the faster convolution


class Conv1d(nn.Conv1d):
    """``nn.Conv1d``, up to four times as fast where a CPU acts for one robot.

    torch's convolution reorders its weights at every call. With hundreds of rows that is nothing;
    with one it is most of the time, and the product of the weights with the columns of the input
    (im2col) reads them once, as they are.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T) -> (B, C_out, T / stride)."""
        if not _is_small(x):
            return super().forward(x)
        padding = self.padding[0]
        columns = F.pad(x, (padding, padding)).unfold(2, self.kernel_size[0], self.stride[0])
        rows = columns.transpose(1, 2).flatten(2)  # (B, T, C_in * kernel)
        return F.linear(rows, self.weight.flatten(1), self.bias).transpose(1, 2)


class ConvTranspose1d(nn.ConvTranspose1d):
    """``nn.ConvTranspose1d`` with the same short cut as :class:`Conv1d`."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T) -> (B, C_out, T * stride)."""
        if not _is_small(x):
            return super().forward(x)
        columns = (x.transpose(1, 2) @ self.weight.flatten(1)).transpose(1, 2)
        length = (x.shape[2] - 1) * self.stride[0] - 2 * self.padding[0] + self.kernel_size[0]
        y = F.fold(
            columns,
            (1, length),
            (1, self.kernel_size[0]),
            padding=(0, self.padding[0]),
            stride=(1, self.stride[0]),
        )
        return y.squeeze(2) + self.bias[:, None]


def _is_small(x: Tensor) -> bool:
    is_inference = not torch.is_grad_enabled()
    return is_inference and x.device.type == "cpu" and x.shape[0] * x.shape[2] <= _FEW_ROWS


class Downsample1d(nn.Module):
    """Halve the time axis: (B, C, T) -> (B, C, T / 2), T even."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv1d(channels, channels, kernel_size=3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample1d(nn.Module):
    """Double the time axis: (B, C, T) -> (B, C, 2 T)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvTranspose1d(channels, channels, kernel_size=4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Conv1dBlock(nn.Module):
    """Convolution, group normalisation, Mish: (B, C_in, T) -> (B, C_out, T).

    Args:
        kernel_size: odd, so that T stays.
        n_groups: divides ``out_channels``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, n_groups: int
    ) -> None:
        super().__init__()
        self.block = nn.Sequential(
            Conv1d(in_channels, out_channels, kernel_size, padding=kernel_size // 2),
            nn.GroupNorm(n_groups, out_channels),
            nn.Mish(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Modulation(NamedTuple):
    """What a condition does to the channels of a block: (B, C) shifts, behind C scales if any."""

    values: Tensor


class ConditionalResidualBlock1D(nn.Module):
    """Two convolution blocks with a short cut, modulated between them by a condition.

    Modulation is FiLM (Perez et al. 2018): each channel is shifted, and with
    ``predict_scale`` first multiplied, by what a linear layer makes of the condition.

    Args:
        cond_dim: numbers of the condition.
        predict_scale: multiply channels as well as shift them.

    Other arguments: see :class:`Conv1dBlock`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        cond_dim: int,
        kernel_size: int,
        n_groups: int,
        predict_scale: bool,
    ) -> None:
        super().__init__()
        self.predict_scale = predict_scale
        self.blocks = nn.ModuleList(
            Conv1dBlock(channels, out_channels, kernel_size, n_groups)
            for channels in (in_channels, out_channels)
        )
        n_modulations = 2 * out_channels if predict_scale else out_channels
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(cond_dim, n_modulations))
        self.residual_conv = (
            Conv1d(in_channels, out_channels, kernel_size=1)
            if in_channels != out_channels
            else nn.Identity()
        )

    def modulation(self, cond: Tensor) -> Modulation:
        """Of a condition (B, cond_dim), for many calls."""
        return Modulation(self.cond_encoder(cond))

    def forward(self, x: Tensor, cond: Tensor | Modulation) -> Tensor:
        """(B, C_in, T), and a condition (B, cond_dim) or its modulation -> (B, C_out, T)."""
        first, second = self.blocks
        hidden = first(x)
        modulation = (self.modulation(cond) if isinstance(cond, Tensor) else cond).values[..., None]
        if self.predict_scale:
            scale, shift = modulation.chunk(2, dim=1)
            hidden = scale * hidden + shift
        else:
            hidden = hidden + modulation
        return second(hidden) + self.residual_conv(x)
