"""The temporal U-Net of Diffusion Policy (Chi et al. 2023; U-Net after Janner et al. 2022).

Names and shapes of its weights are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffusion_policy.model.diffusion.conv1d_components import (
    ConditionalResidualBlock1D,
    Conv1dBlock,
    Downsample1d,
    Modulation,
    Upsample1d,
)
from diffusion_policy.model.diffusion.positional_embedding import (
    SinusoidalPosEmb,
    batch_of_timesteps,
)
from diffusion_policy.util.errors import UserError, require


class UnetCondition(NamedTuple):
    """Everything that the network computes without the trajectory.

    Attributes:
        conditions: the condition of each residual block, or its modulation, in the order of use.
        local: (B, C, T) the encoded local condition, or None.
    """

    conditions: list[Tensor | Modulation]
    local: Tensor | None


class ConditionalUnet1D(nn.Module):
    """Denoises a trajectory by convolutions over time, at several resolutions.

    Time steps and channels for down_dims (256, 512, 1024)::

        sample      T      input_dim      final_conv   T      256 -> input_dim
        down 0      T      256            up 1         T/2    512 -> T    256
        down 1      T/2    512            up 0         T/4   1024 -> T/2  512
        down 2      T/4   1024  -> mid    T/4   1024

    Each up level also takes the output of the down level of its resolution. Every residual block is
    modulated by the embedded time joined with the global condition; a local condition is added to
    the features of down 0.

    Args:
        input_dim: D, numbers of a time step.
        local_cond_dim: Dl, numbers of the condition at each time step, or None.
        global_cond_dim: G, numbers of the condition of the whole trajectory, or None.
        diffusion_step_embed_dim: width of the embedded time; even.
        down_dims: channels by resolution; all but the last halve the time axis.
        kernel_size: of the convolutions, in time steps; odd.
        n_groups: of the group normalisation; divides all of ``down_dims``.
        cond_predict_scale: conditions multiply features as well as shift them.

    Raises:
        UserError: a setting is out of range.
    """

    def __init__(
        self,
        input_dim: int,
        local_cond_dim: int | None = None,
        global_cond_dim: int | None = None,
        diffusion_step_embed_dim: int = 256,
        down_dims: Sequence[int] = (256, 512, 1024),
        kernel_size: int = 3,
        n_groups: int = 8,
        cond_predict_scale: bool = False,
    ) -> None:
        super().__init__()
        _check_sizes(down_dims, kernel_size, n_groups)
        self.local_cond_dim = local_cond_dim
        self.global_cond_dim = global_cond_dim
        cond_dim = diffusion_step_embed_dim + (global_cond_dim or 0)

        def residual(in_channels: int, out_channels: int) -> ConditionalResidualBlock1D:
            return ConditionalResidualBlock1D(
                in_channels, out_channels, cond_dim, kernel_size, n_groups, cond_predict_scale
            )

        self.diffusion_step_encoder = nn.Sequential(
            SinusoidalPosEmb(diffusion_step_embed_dim, "diffusion_step_embed_dim"),
            nn.Linear(diffusion_step_embed_dim, 4 * diffusion_step_embed_dim),
            nn.Mish(),
            nn.Linear(4 * diffusion_step_embed_dim, diffusion_step_embed_dim),
        )
        first, last = down_dims[0], down_dims[-1]
        self.local_cond_encoder = None
        if local_cond_dim is not None:
            encoders = [residual(local_cond_dim, first) for _ in range(2)]
            # Published weights hold a second encoder, which the network does not use.
            encoders[1].requires_grad_(False)
            self.local_cond_encoder = nn.ModuleList(encoders)

        self.down_modules = nn.ModuleList()
        for level, (in_channels, out_channels) in enumerate(
            zip((input_dim, *down_dims[:-1]), down_dims, strict=True)
        ):
            is_last = level == len(down_dims) - 1
            self.down_modules.append(
                nn.ModuleList(
                    [
                        residual(in_channels, out_channels),
                        residual(out_channels, out_channels),
                        nn.Identity() if is_last else Downsample1d(out_channels),
                    ]
                )
            )
        self.mid_modules = nn.ModuleList([residual(last, last), residual(last, last)])
        self.up_modules = nn.ModuleList()
        for level in range(len(down_dims) - 1, 0, -1):
            in_channels, out_channels = down_dims[level], down_dims[level - 1]
            self.up_modules.append(
                nn.ModuleList(
                    [
                        # Twice: from below, and from the skip connection.
                        residual(2 * in_channels, out_channels),
                        residual(out_channels, out_channels),
                        Upsample1d(out_channels),
                    ]
                )
            )
        self.final_conv = nn.Sequential(
            Conv1dBlock(first, first, kernel_size, n_groups),
            nn.Conv1d(first, input_dim, kernel_size=1),
        )

    @property
    def stride(self) -> int:
        """Time steps that become one at the lowest resolution."""
        return 2 ** (len(self.down_modules) - 1)

    def check_length(self, length: int) -> None:
        """Refuse a trajectory of ``length`` steps if the U-Net cannot take it."""
        require(
            length >= 1 and length % self.stride == 0,
            "policy.horizon",
            length,
            f"use a multiple of {self.stride}, by which policy.down_dims with "
            f"{len(self.down_modules)} numbers divides time",
        )

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        local_cond: Tensor | None = None,
        global_cond: Tensor | None = None,
    ) -> Tensor:
        """The prediction for a noisy trajectory: noise, for example.

        Args:
            sample: (B, T, D), T a multiple of ``stride``.
            timestep: (B,) or one number; may be fractional.
            local_cond: (B, T, Dl), exactly when ``local_cond_dim`` is set.
            global_cond: (B, G), exactly when ``global_cond_dim`` is set.

        Returns:
            (B, T, D), float32 also under autocast.

        Raises:
            UserError: T is not a multiple of ``stride``, or a condition is missing or not expected.
        """
        cond = self._join(batch_of_timesteps(timestep, sample), global_cond)
        # Each block projects the condition itself, since FSDP gathers its weights only while it is
        # called.
        encoded = UnetCondition([cond] * len(list(self._blocks())), self._local(local_cond, cond))
        return self.decode(sample, encoded)

    def encode(
        self, timestep: Tensor, local_cond: Tensor | None, global_cond: Tensor | None
    ) -> UnetCondition:
        """All of :meth:`forward` that does not depend on the sample, for :meth:`decode`.

        Args:
            timestep: (B,), may be fractional.
            local_cond, global_cond: see :meth:`forward`.
        """
        cond = self._join(timestep, global_cond)
        modulations = [block.modulation(cond) for block in self._blocks()]
        return UnetCondition(modulations, self._local(local_cond, cond))

    def _join(self, timestep: Tensor, global_cond: Tensor | None) -> Tensor:
        """(B, cond_dim) embedded time and global condition."""
        _check_given("global_cond", global_cond, self.global_cond_dim)
        time = self.diffusion_step_encoder(timestep)
        return time if global_cond is None else torch.cat([time, global_cond], dim=-1)

    def _local(self, local_cond: Tensor | None, cond: Tensor) -> Tensor | None:
        """(B, C, T) of the local condition (B, T, Dl)."""
        _check_given("local_cond", local_cond, self.local_cond_dim)
        if local_cond is None:
            return None
        return self.local_cond_encoder[0](local_cond.transpose(1, 2), cond)

    def decode(self, sample: Tensor, encoded: UnetCondition) -> Tensor:
        """The rest of :meth:`forward`, given the result of :meth:`encode`."""
        self.check_length(sample.shape[1])
        conditions = iter(encoded.conditions)
        x = sample.transpose(1, 2)
        skips = []
        for level, (residual, residual2, downsample) in enumerate(self.down_modules):
            x = residual(x, next(conditions))
            if level == 0 and encoded.local is not None:
                x = x + encoded.local
            x = residual2(x, next(conditions))
            skips.append(x)
            x = downsample(x)
        for residual in self.mid_modules:
            x = residual(x, next(conditions))
        for residual, residual2, upsample in self.up_modules:
            x = residual(torch.cat([x, skips.pop()], dim=1), next(conditions))
            x = upsample(residual2(x, next(conditions)))
        block, head = self.final_conv
        x = block(x)
        # bfloat16 would round an action coarsely.
        with torch.autocast(x.device.type, enabled=False):
            return head(x.to(head.weight.dtype)).transpose(1, 2)

    def _blocks(self) -> Iterator[ConditionalResidualBlock1D]:
        """The residual blocks in the order of :meth:`decode`."""
        for stage in (*self.down_modules, self.mid_modules, *self.up_modules):
            yield from stage[:2]


def _check_sizes(down_dims: Sequence[int], kernel_size: int, n_groups: int) -> None:
    remedy = f"use one or more multiples of policy.n_groups ({n_groups})"
    fits = n_groups >= 1 and all(n >= 1 and n % n_groups == 0 for n in down_dims)
    require(fits and len(down_dims) > 0, "policy.down_dims", list(down_dims), remedy)
    is_odd = kernel_size >= 1 and kernel_size % 2 == 1
    require(is_odd, "policy.kernel_size", kernel_size, "use an odd number")


def _check_given(name: str, condition: Tensor | None, dim: int | None) -> None:
    if dim is not None and condition is None:
        raise UserError(f"{name} is missing; give a condition of {dim} numbers")
    if dim is None and condition is not None:
        raise UserError(f"{name} is given, but {name}_dim is None; set it or leave {name} out")
