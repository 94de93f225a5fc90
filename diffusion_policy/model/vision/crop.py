"""Crops of images: random while training, from the centre otherwise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusion_policy.model.common import batch_random


class Crop(nn.Module):
    """(N, C, H, W) -> (N, C, h, w).

    In training mode each image has its own crop, at a position drawn uniformly from all that fit,
    by :mod:`batch_random` on the CPU. In evaluation mode the crop is centred.

    Args:
        size: (h, w) of the crop, at most (H, W); or its share of both sides, above 0 and at most 1.
    """

    def __init__(self, size: tuple[int, int] | float) -> None:
        super().__init__()
        self.size = size

    def of(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of the crop of an image (H, W)."""
        if isinstance(self.size, tuple):
            return self.size
        return round(self.size * height), round(self.size * width)

    def forward(self, images: Tensor) -> Tensor:
        height, width = self.of(*images.shape[-2:])
        free_rows, free_columns = images.shape[-2] - height, images.shape[-1] - width
        if not self.training:
            top, left = free_rows // 2, free_columns // 2
            return images[..., top : top + height, left : left + width]
        n, channels = images.shape[:2]
        # On the CPU, so that a seed gives the same crops on every device.
        tops = batch_random.randint(free_rows + 1, (n, 1, 1, 1)).to(images.device)
        lefts = batch_random.randint(free_columns + 1, (n, 1, 1, 1)).to(images.device)
        rows = tops + torch.arange(height, device=images.device)[:, None]
        columns = lefts + torch.arange(width, device=images.device)
        batch = torch.arange(n, device=images.device).view(n, 1, 1, 1)
        channel = torch.arange(channels, device=images.device).view(1, channels, 1, 1)
        return images[batch, channel, rows, columns]

    def extra_repr(self) -> str:
        return f"size={self.size}"
