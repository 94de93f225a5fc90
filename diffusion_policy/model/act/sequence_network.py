"""ACT without a latent: a transformer from a sequence of observations to a chunk of actions.

Each time step is one token, the sum of what its images and its low-dim observations are projected
to. Learned queries, one for each action, attend to each other and to the encoded sequence.

Legend: B batch, S time steps, H actions of a chunk, K numbers of a state, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffusion_policy.model.common.action_head import ActionHead
from diffusion_policy.model.common.sinusoids import sinusoidal_positions
from diffusion_policy.model.common.transformer import TransformerDecoder, TransformerEncoder
from diffusion_policy.model.vision.image_vectors import ImageVectors
from diffusion_policy.util.errors import require


class ACTSequenceNetwork(nn.Module):
    """From S normalised observations to the raw numbers of H actions, in [-1, 1].

    Args:
        state_dim: K, or 0.
        n_cameras: images of a time step, or 0.
        action_dim: numbers of an action.
        n_obs_steps: S.
        chunk_size: H.
        dim_model, n_heads, dim_feedforward, n_encoder_layers, n_decoder_layers, dropout: of the
            transformer; its layers are pre-norm.
        head_sizes: widths of the hidden layers from a query to its action.
        backbone, backbone_weights, group_norm, image_size: see :class:`ImageVectors`.

    Raises:
        UserError: a setting is out of range.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        state_dim: int,
        n_cameras: int,
        action_dim: int,
        n_obs_steps: int,
        chunk_size: int,
        image_size: Sequence[int],
        dim_model: int = 512,
        n_heads: int = 8,
        dim_feedforward: int = 2048,
        n_encoder_layers: int = 4,
        n_decoder_layers: int = 4,
        head_sizes: Sequence[int] = (2048, 1024),
        dropout: float = 0.1,
        backbone: str = "cnn",
        backbone_weights: str | None = None,
        group_norm: bool = True,
    ) -> None:
        super().__init__()
        remedy = f"use a number that divides policy.dim_model ({dim_model})"
        require(dim_model % n_heads == 0, "policy.n_heads", n_heads, remedy)
        require(0 <= dropout < 1, "policy.dropout", dropout, "use at least 0 and less than 1")
        if n_cameras:
            self.images = ImageVectors(
                n_cameras, backbone, backbone_weights, group_norm, image_size
            )
            self.image_projection = nn.Linear(self.images.n_features, dim_model)
        if state_dim:
            self.state_projection = nn.Linear(state_dim, dim_model)
        self.n_cameras, self.state_dim = n_cameras, state_dim
        table = sinusoidal_positions(n_obs_steps, dim_model)
        self.register_buffer("positions", table, persistent=False)
        sizes = (dim_model, n_heads, dim_feedforward, dropout)
        self.encoder = TransformerEncoder(n_encoder_layers, *sizes)
        self.memory_norm = nn.LayerNorm(dim_model)
        self.queries = nn.Parameter(torch.randn(chunk_size, dim_model))
        self.decoder = TransformerDecoder(n_decoder_layers, *sizes)
        self.head = ActionHead(dim_model, head_sizes, action_dim, dropout)

    def forward(self, state: Tensor | None, images: Sequence[Tensor]) -> Tensor:
        """(B, S, K) states and (B, S, 3, h, w) images of each camera -> (B, H, action_dim)."""
        tokens = self.positions + self.embed(state, images)
        memory = self.memory_norm(self.encoder(tokens))
        queries = self.queries.expand(len(tokens), -1, -1)
        return self.head(self.decoder(queries, memory, None))

    def embed(self, state: Tensor | None, images: Sequence[Tensor]) -> Tensor:
        """A token for each time step, (B, S, D); arguments of :meth:`forward`."""
        parts = []
        if self.n_cameras:
            features = self.images([image.flatten(0, 1) for image in images])
            parts.append(self.image_projection(features).unflatten(0, images[0].shape[:2]))
        if state is not None and self.state_dim:
            parts.append(self.state_projection(state))
        return torch.stack(parts).sum(0)
