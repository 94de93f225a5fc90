"""Pre-norm transformer stacks that compute what torch's own stacks compute, at less cost.

Parameter names and shapes equal those of ``torch.nn.TransformerEncoder`` and
``TransformerDecoder`` with ``norm_first=True``, so that weights move between the two.

A mask (Q, M) tells what a query may attend to, in one of two forms: bool, True where it may; or
float, added to the scores, 0 where it may and -inf where not. None allows everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_policy.model.common.cpu_kernels import Dropout, attention

Activation = Callable[[Tensor], Tensor]


class KeysValues(NamedTuple):
    """The projections of a memory by one layer: (B, heads, M, D / heads) each."""

    keys: Tensor
    values: Tensor


class Attention(nn.Module):
    """Multi-head attention with packed input projections.

    Args:
        dim: width of queries, keys and values.
        n_heads: number of heads; divides ``dim``.
        dropout: probability of dropping an attention weight in training.
    """

    def __init__(self, dim: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.dropout = Dropout(dropout)
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, memory: Tensor | KeysValues | None, mask: Tensor | None
    ) -> Tensor:
        """Attend from ``query`` (B, Q, D) to a memory, or to itself when None.

        Args:
            memory: (B, M, D), or the result of :meth:`keys_values` for it.
            mask: (Q, M), see the top of this file.

        Returns:
            (B, Q, D).
        """
        dim = query.shape[-1]
        # Once, since adapters compute them at each access.
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if memory is None:
            q, k, v = (self._split(x) for x in F.linear(query, weight, bias).chunk(3, dim=-1))
        else:
            q = self._split(F.linear(query, weight[:dim], bias[:dim]))
            if isinstance(memory, Tensor):
                memory = self._keys_values(memory, weight[dim:], bias[dim:])
            k, v = memory
        attended = attention(q, k, v, mask, self.dropout)
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def keys_values(self, memory: Tensor) -> KeysValues:
        """Project a memory (B, M, D) that many calls attend to."""
        dim = memory.shape[-1]
        return self._keys_values(memory, self.in_proj_weight[dim:], self.in_proj_bias[dim:])

    def _keys_values(self, memory: Tensor, weight: Tensor, bias: Tensor) -> KeysValues:
        both = F.linear(memory, weight, bias).chunk(2, dim=-1)
        return KeysValues(*(self._split(x) for x in both))

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, heads, N, D / heads)."""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward block, each pre-normed."""

    def __init__(
        self,
        dim: int,
        n_heads: int,
        dim_feedforward: int,
        dropout: float,
        activation: Activation = F.relu,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.self_attn = Attention(dim, n_heads, dropout)
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) tokens, (N, N) mask -> (B, N, D)."""
        x = self.dropout.add(x, self.self_attn(self.norm1(x), None, mask))
        hidden = self.dropout(self.activation(self.linear1(self.norm2(x))))
        return self.dropout.add(x, self.linear2(hidden))


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention and a feed-forward block, each pre-normed."""

    def __init__(
        self,
        dim: int,
        n_heads: int,
        dim_feedforward: int,
        dropout: float,
        activation: Activation = F.relu,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.self_attn = Attention(dim, n_heads, dropout)
        self.multihead_attn = Attention(dim, n_heads, dropout)
        self.linear1 = nn.Linear(dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | KeysValues,
        mask: Tensor | None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, Q, D) queries, a memory of M, (Q, Q) and (Q, M) masks -> (B, Q, D)."""
        x = self.dropout.add(x, self.self_attn(self.norm1(x), None, mask))
        x = self.dropout.add(x, self.multihead_attn(self.norm2(x), memory, memory_mask))
        hidden = self.dropout(self.activation(self.linear1(self.norm3(x))))
        return self.dropout.add(x, self.linear2(hidden))


class TransformerEncoder(nn.Module):
    """A stack of :class:`EncoderLayer`, without a LayerNorm after the last."""

    def __init__(
        self,
        n_layers: int,
        dim: int,
        n_heads: int,
        dim_feedforward: int,
        dropout: float,
        activation: Activation = F.relu,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(dim, n_heads, dim_feedforward, dropout, activation)
            for _ in range(n_layers)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, D) tokens, (N, N) mask -> (B, N, D)."""
        for layer in self.layers:
            x = layer(x, mask)
        return x


class TransformerDecoder(nn.Module):
    """A stack of :class:`DecoderLayer`, with a LayerNorm after the last if ``final_norm``."""

    def __init__(
        self,
        n_layers: int,
        dim: int,
        n_heads: int,
        dim_feedforward: int,
        dropout: float,
        activation: Activation = F.relu,
        final_norm: bool = True,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(dim, n_heads, dim_feedforward, dropout, activation)
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(dim) if final_norm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        memory: Tensor | Sequence[KeysValues],
        mask: Tensor | None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """Queries attend to each other and to a memory.

        Args:
            x: (B, Q, D), or (1, Q, D) for every row of the memory alike.
            memory: (B, M, D), or the result of :meth:`keys_values` for it.
            mask, memory_mask: (Q, Q) and (Q, M), see the top of this file.

        Returns:
            (B, Q, D).
        """
        # Each layer projects a memory itself, since FSDP gathers its weights only while it is
        # called.
        every = [memory] * len(self.layers) if isinstance(memory, Tensor) else memory
        for layer, own in zip(self.layers, every, strict=True):
            x = layer(x, own, mask, memory_mask)
        return self.norm(x)

    def keys_values(self, memory: Tensor) -> list[KeysValues]:
        """The projections of a memory (B, M, D) by each layer."""
        return [layer.multihead_attn.keys_values(memory) for layer in self.layers]
