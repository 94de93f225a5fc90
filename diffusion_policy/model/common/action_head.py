"""The layers from features to raw numbers of actions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffusion_policy.model.common.cpu_kernels import Dropout


class ActionHead(nn.Module):
    """Linear layers, ReLU and dropout after each but the last, and tanh after that.

    Args:
        n_inputs: numbers of the features.
        hidden: widths of the hidden layers.
        n_outputs: raw numbers of an action.
        dropout: probability, in [0, 1).
    """

    def __init__(
        self, n_inputs: int, hidden: Sequence[int], n_outputs: int, dropout: float
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(n_inputs, width), nn.ReLU(), Dropout(dropout)]
            n_inputs = width
        self.hidden = nn.Sequential(*layers)
        self.last = nn.Linear(n_inputs, n_outputs)

    def forward(self, features: Tensor) -> Tensor:
        """(..., n_inputs) -> (..., n_outputs) in [-1, 1], float32."""
        features = self.hidden(features)
        # bfloat16 would round an action to a hundredth of its range.
        with torch.autocast(features.device.type, enabled=False):
            return self.last(features.float()).tanh()
