"""A small convolutional network that finds points in an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_policy.model.common.cpu_kernels import image_layout
from diffusion_policy.model.vision.group_norm import CHANNELS_PER_GROUP


class SpatialSoftmax(nn.Module):
    """The mean position of each channel's activation (Levine et al. 2016, section 5.1).

    Attributes:
        inverse_temperature: learned. With 1 the softmax of a new network is almost flat over the
            whole image, and learning starts late.
    """

    def __init__(self, inverse_temperature: float = 4.0) -> None:
        super().__init__()
        # One number in an axis of its own: FSDP takes no scalars.
        self.inverse_temperature = nn.Parameter(torch.tensor([inverse_temperature]))

    def forward(self, x: Tensor) -> Tensor:
        """(N, K, H, W) -> (N, 2 K) float32: K columns, then K rows, -1..1 over the map."""
        height, width = x.shape[-2:]
        # bfloat16 would round a coordinate to a fraction of a pixel.
        with torch.autocast(x.device.type, enabled=False):
            logits = x.float().flatten(2) * self.inverse_temperature
            share = logits.softmax(-1).unflatten(2, x.shape[-2:])
            columns = torch.linspace(-1, 1, width, device=x.device)
            rows = torch.linspace(-1, 1, height, device=x.device)
            return torch.cat([share.sum(2) @ columns, share.sum(3) @ rows], dim=-1)


class KeypointCNN(nn.Module):
    """Convolutions, then the positions of ``n_keypoints`` points: 0.12 M parameters before ``fc``.

    An image of 96 x 96 pixels takes 28 M multiplications, a twelfth of a ResNet-18's. Like
    torchvision's networks it ends in a linear layer ``fc``, which users replace.

    Args:
        n_keypoints: points to find in an image.
    """

    def __init__(self, n_keypoints: int = 64) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            _convolution(3, 32, kernel=8, stride=4),
            nn.ReLU(),
            Residual(32),
            _convolution(32, 64, kernel=3, stride=2),
            nn.ReLU(),
            Residual(64),
            nn.Conv2d(64, n_keypoints, 1, bias=False),  # a softmax cancels a bias
        )
        self.softmax = SpatialSoftmax()
        self.fc: nn.Module = nn.Linear(2 * n_keypoints, 2 * n_keypoints)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images -> (N, 2 n_keypoints) positions, through ``fc``."""
        points = self.softmax(self.convolutions(image_layout(x)))
        with torch.autocast(x.device.type, enabled=False):
            return self.fc(points)


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside an identity; the shape stays."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels, kernel=3, stride=1)
        self.second = _convolution(channels, channels, kernel=3, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    # A stride of s leaves 1 / s of the sides.
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - stride + 1) // 2)
    return nn.Sequential(conv, nn.GroupNorm(outputs // CHANNELS_PER_GROUP, outputs))
