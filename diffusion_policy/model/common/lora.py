"""Low-rank adapters for linear and packed attention projections (Hu et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


@dataclass(frozen=True)
class LoRAConfig:
    """Size of the adapters.

    Attributes:
        rank: inner dimension of the update.
        alpha: the update is scaled by ``alpha / rank``.
        dropout: probability of dropping a column of the update in training. The paper drops an
            input feature of the adapter, which drops the same column of A.
    """

    rank: int
    alpha: float
    dropout: float = 0.0


class LowRankUpdate(nn.Module):
    """Parametrisation ``weight + alpha / rank * B A`` of some row blocks of a frozen weight.

    Args:
        weight: (out, in) base weight.
        row_blocks: (start, stop) ranges of rows, each of which gets its own adapters: the query and
            value rows of a packed projection, or all rows of a linear layer.
    """

    def __init__(
        self, weight: Tensor, row_blocks: Iterable[tuple[int, int]], config: LoRAConfig
    ) -> None:
        super().__init__()
        self.row_blocks = list(row_blocks)
        self.scale = config.alpha / config.rank
        self.dropout = nn.Dropout(config.dropout)
        self.lora_A = nn.ParameterList()
        self.lora_B = nn.ParameterList()
        for start, stop in self.row_blocks:
            a = torch.empty(config.rank, weight.shape[1])
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))
            self.lora_A.append(nn.Parameter(a))
            self.lora_B.append(nn.Parameter(torch.zeros(stop - start, config.rank)))

    def forward(self, weight: Tensor) -> Tensor:
        rows = []
        position = 0
        for (start, stop), a, b in zip(self.row_blocks, self.lora_A, self.lora_B, strict=True):
            rows.append(weight[position:start])
            kept = self.dropout(torch.ones_like(a[0]))
            rows.append(weight[start:stop] + self.scale * (b @ (a * kept)))
            position = stop
        rows.append(weight[position:])
        return torch.cat(rows)


def add_lora(
    module: nn.Module, name: str, config: LoRAConfig, row_blocks: Iterable[tuple[int, int]] | None
) -> None:
    """Freeze ``module.<name>`` and train a low-rank update of its rows; None is all rows."""
    weight = getattr(module, name)
    weight.requires_grad_(False)
    blocks = [(0, weight.shape[0])] if row_blocks is None else row_blocks
    parametrize.register_parametrization(module, name, LowRankUpdate(weight, blocks, config))


def merge_lora(model: nn.Module) -> None:
    """Fold every low-rank update below ``model`` into its weight, in place; outputs stay equal."""
    for module in model.modules():
        if parametrize.is_parametrized(module):
            parametrized: Any = module.parametrizations
            for name in list(parametrized):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
