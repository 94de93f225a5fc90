"""Transformer layers that add positions to queries and keys, and not to values.

They are those of DETR (Carion et al. 2020, appendix A.3), which ACT builds on. Every layer gets the
positions anew. Normalisation follows a block (post-norm) or precedes it (pre-norm).

Legend: B batch, N tokens, M tokens of the memory, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


@dataclass(frozen=True)
class LayerSizes:
    """What the layers of a network have in common.

    Attributes:
        dim: D.
        n_heads: heads of attention; divides ``dim``.
        dim_feedforward: width of the hidden layer of the feed-forward block.
        dropout: probability, of attention weights and of what blocks add.
        activation: one of :data:`ACTIVATIONS`.
        pre_norm: whether normalisation precedes a block.
    """

    dim: int
    n_heads: int
    dim_feedforward: int
    dropout: float
    activation: str
    pre_norm: bool


class _Layer(nn.Module):
    """What both kinds of layers share: self-attention, the feed-forward block and residuals."""

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[sizes.activation]
        self.pre_norm = sizes.pre_norm
        self.self_attn = _attention(sizes)
        self.linear1 = nn.Linear(sizes.dim, sizes.dim_feedforward)
        self.linear2 = nn.Linear(sizes.dim_feedforward, sizes.dim)
        self.norm1 = nn.LayerNorm(sizes.dim)
        self.norm2 = nn.LayerNorm(sizes.dim)
        self.dropout = nn.Dropout(sizes.dropout)

    def _add(self, x: Tensor, norm: nn.Module, block: Callable[[Tensor], Tensor]) -> Tensor:
        """``x`` plus what a block makes of it, normalised before or after."""
        if self.pre_norm:
            return x + self.dropout(block(norm(x)))
        return norm(x + self.dropout(block(x)))

    def _attend_to_itself(self, x: Tensor, positions: Tensor, padding: Tensor | None) -> Tensor:
        placed = x + positions
        return self.self_attn(placed, placed, x, key_padding_mask=padding, need_weights=False)[0]

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class EncoderLayer(_Layer):
    """Self-attention and a feed-forward block."""

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor | None = None) -> Tensor:
        """Tokens (B, N, D) -> (B, N, D).

        Args:
            positions: (N, D) or (B, N, D).
            padding: (B, N) bool, True for tokens that none attends to.
        """
        x = self._add(x, self.norm1, lambda x: self._attend_to_itself(x, positions, padding))
        return self._add(x, self.norm2, self._feed_forward)


class DecoderLayer(_Layer):
    """Self-attention, cross-attention and a feed-forward block."""

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__(sizes)
        self.multihead_attn = _attention(sizes)
        self.norm3 = nn.LayerNorm(sizes.dim)

    def forward(
        self, x: Tensor, positions: Tensor, memory: Tensor, memory_positions: Tensor
    ) -> Tensor:
        """Queries (B, N, D) and a memory (B, M, D) -> (B, N, D)."""

        def attend(x: Tensor) -> Tensor:
            keys = memory + memory_positions
            return self.multihead_attn(x + positions, keys, memory, need_weights=False)[0]

        x = self._add(x, self.norm1, lambda x: self._attend_to_itself(x, positions, None))
        x = self._add(x, self.norm2, attend)
        return self._add(x, self.norm3, self._feed_forward)


class Encoder(nn.Module):
    """A stack of :class:`EncoderLayer`; pre-norm ends in a LayerNorm."""

    def __init__(self, n_layers: int, sizes: LayerSizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(sizes.dim) if sizes.pre_norm else nn.Identity()

    def forward(self, x: Tensor, positions: Tensor, padding: Tensor | None = None) -> Tensor:
        """See :class:`EncoderLayer`."""
        for layer in self.layers:
            x = layer(x, positions, padding)
        return self.norm(x)


class Decoder(nn.Module):
    """A stack of :class:`DecoderLayer`, which ends in a LayerNorm."""

    def __init__(self, n_layers: int, sizes: LayerSizes) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(sizes) for _ in range(n_layers))
        self.norm = nn.LayerNorm(sizes.dim)

    def forward(
        self, x: Tensor, positions: Tensor, memory: Tensor, memory_positions: Tensor
    ) -> Tensor:
        """See :class:`DecoderLayer`."""
        for layer in self.layers:
            x = layer(x, positions, memory, memory_positions)
        return self.norm(x)


def _attention(sizes: LayerSizes) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(sizes.dim, sizes.n_heads, sizes.dropout, batch_first=True)
