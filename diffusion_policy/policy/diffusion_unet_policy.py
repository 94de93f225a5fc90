"""Diffusion Policy with a temporal U-Net (DP-C)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from diffusion_policy.model.diffusion.conditional_unet1d import ConditionalUnet1D, UnetCondition
from diffusion_policy.policy.denoising_policy import DenoisingPolicy


class DiffusionUnetPolicy(DenoisingPolicy):
    """Denoises by convolutions over time.

    Conditioning: ``global`` modulates every layer by all observations; ``local`` adds each
    observation at its own time step; ``inpaint`` see :class:`DenoisingPolicy`.

    Args:
        diffusion_step_embed_dim: width of the embedding of the noise level.
        down_dims: channels by resolution; each but the last halves it.
        kernel_size: of the convolutions, in steps.
        n_groups: of the group normalisation.
        cond_predict_scale: conditions scale features as well as shift them.

    Other arguments: see :class:`DenoisingPolicy`.

    Raises:
        UserError: a setting is unknown or does not fit the others.
    """

    model: ConditionalUnet1D
    further_settings_of = DenoisingPolicy
    CONDITIONINGS = ("global", "local", "inpaint")

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        *,
        diffusion_step_embed_dim: int = 256,
        down_dims: Sequence[int] = (256, 512, 1024),
        kernel_size: int = 5,
        n_groups: int = 8,
        cond_predict_scale: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(shape_meta, **common)
        features = self.obs_encoder.output_dim
        self.model = ConditionalUnet1D(
            input_dim=self.trajectory_dim,
            local_cond_dim=features if self.conditioning == "local" else None,
            global_cond_dim=(
                features * self.n_obs_steps if self.conditioning == "global" else None
            ),
            diffusion_step_embed_dim=diffusion_step_embed_dim,
            down_dims=tuple(down_dims),
            kernel_size=kernel_size,
            n_groups=n_groups,
            cond_predict_scale=cond_predict_scale,
        )
        self.model.check_length(self.horizon)

    def denoise(self, x: Tensor, time: Tensor, features: Tensor) -> Tensor:
        return self.model(x, time, *self._conditions(features))

    def encode(self, time: Tensor, features: Tensor) -> UnetCondition:
        return self.model.encode(time, *self._conditions(features))

    def decode(self, x: Tensor, encoded: UnetCondition) -> Tensor:
        return self.model.decode(x, encoded)

    def _conditions(self, features: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """(B, T, F) of each step, and (B, To * F) of all steps."""
        if self.conditioning == "global":
            return None, features.flatten(1)
        if self.conditioning == "local":
            # Steps after the last observation have none: zeros.
            return F.pad(features, (0, 0, 0, self.horizon - self.n_obs_steps)), None
        return None, None
