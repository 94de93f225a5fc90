"""A small convolutional network with one average over the image."""

from __future__ import annotations

from torch import Tensor, nn

from diffusion_policy.model.common.cpu_kernels import image_layout


class PlainCNN(nn.Module):
    """Four convolutions and the mean over the map: 0.11 M parameters before ``fc``.

    An image of 84 x 84 pixels becomes maps of 21 x 21, then 11 x 11. Like torchvision's networks it
    ends in a linear layer ``fc``, which users replace.
    """

    N_FEATURES = 64

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, 32, kernel_size=8, stride=4, padding=2),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=4, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, self.N_FEATURES, kernel_size=3, padding=1),
            nn.ReLU(),
        )
        self.fc: nn.Module = nn.Linear(self.N_FEATURES, self.N_FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images -> (N, 64), through ``fc``."""
        return self.fc(self.convolutions(image_layout(x)).mean((2, 3)))
