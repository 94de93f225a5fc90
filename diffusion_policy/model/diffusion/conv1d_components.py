"""Parts of the temporal U-Net; all work on (B, C, T), channels before time."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from diffusion_policy.model.common.cpu_kernels import Conv1d, ConvTranspose1d


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
    """How a condition changes the channels of a block.

    Attributes:
        values: (B, C) shifts, or (B, 2 C) scales and then shifts.
    """

    values: Tensor


class ConditionalResidualBlock1D(nn.Module):
    """Two convolution blocks with a short cut, modulated between them by a condition.

    Modulation is FiLM (Perez et al. 2018): a linear layer turns the condition into a shift, and
    with ``predict_scale`` also into a factor, for each channel.

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
        """The modulation by a condition (B, cond_dim), to be used in many calls."""
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
