"""Behavioural cloning of single actions: images and state in, the raw numbers of an action out.

Legend: B batch, S time steps, K numbers of a state, Da numbers of an action.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffusion_policy.model.common.action_head import ActionHead
from diffusion_policy.model.vision.image_vectors import ImageVectors
from diffusion_policy.util.errors import require


class BCNetwork(nn.Module):
    """A vector of each image, the state beside it, a GRU over time if wanted, and a head.

    Args:
        state_dim: K, or 0.
        n_cameras: images of a time step, or 0.
        action_dim: Da.
        backbone, backbone_weights, group_norm, image_size: see :class:`ImageVectors`.
        use_gru: remember earlier time steps.
        gru_hidden: numbers that the GRU remembers.
        head_sizes: widths of the hidden layers of the head.
        dropout: of the head.

    Raises:
        UserError: a setting is out of range.
    """

    def __init__(
        self,
        *,
        state_dim: int,
        n_cameras: int,
        action_dim: int,
        image_size: Sequence[int],
        backbone: str = "cnn",
        backbone_weights: str | None = None,
        group_norm: bool = True,
        use_gru: bool = False,
        gru_hidden: int = 128,
        head_sizes: Sequence[int] = (512, 512),
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        require(0 <= dropout < 1, "policy.dropout", dropout, "use at least 0 and less than 1")
        self.state_dim, self.n_cameras = state_dim, n_cameras
        n_features = state_dim
        if n_cameras:
            self.images = ImageVectors(
                n_cameras, backbone, backbone_weights, group_norm, image_size
            )
            n_features += self.images.n_features
        self.gru = nn.GRU(n_features, gru_hidden, batch_first=True) if use_gru else None
        self.head = ActionHead(
            gru_hidden if use_gru else n_features, head_sizes, action_dim, dropout
        )

    def forward(
        self, state: Tensor | None, images: Sequence[Tensor], memory: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Actions of consecutive time steps, and the memory after the last.

        Args:
            state: (B, S, K); None without.
            images: (B, S, 3, h, w) of each camera.
            memory: (B, gru_hidden) of the GRU before the first step; None is that of a start.

        Returns:
            (B, S, Da) in [-1, 1]; and (B, gru_hidden), None without a GRU.
        """
        features = self.features(state, images)
        if self.gru is None:
            return self.head(features), None
        before = None if memory is None else memory[None]
        features, after = self.gru(features, before)
        return self.head(features), after[0]

    def features(self, state: Tensor | None, images: Sequence[Tensor]) -> Tensor:
        """(B, S, F) features of the images, then the state; arguments of :meth:`forward`."""
        parts = []
        if self.n_cameras:
            vectors = self.images([image.flatten(0, 1) for image in images])
            parts.append(vectors.unflatten(0, images[0].shape[:2]))
        if state is not None and self.state_dim:
            parts.append(state)
        return torch.cat(parts, dim=-1)
