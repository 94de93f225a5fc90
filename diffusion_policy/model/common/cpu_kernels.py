"""Layers of torch in forms that are faster on the CPU; on other devices they are torch's own.

They are here, so that networks read like their papers. Each tells what torch's form costs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 256  # values of one random byte
_INT64_MIN = torch.iinfo(torch.int64).min
_FEW_ROWS = 8  # of attention: torch's fused kernel is faster below it
_FEW_COLUMNS = 16  # rows x time steps up to which a matrix product is the faster convolution


class Dropout(nn.Module):
    """``nn.Dropout`` with cheap random numbers.

    On the CPU torch draws one random number per element, on one thread; for a small transformer
    that takes more than a quarter of a training step. Here one 64-bit number serves eight elements.

    Args:
        p: probability, in [0, 1). On the CPU it is rounded to a multiple of 1/256, and the kept
            values are scaled by that exact probability, so that expectations stay right.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout is {p}; use a probability in [0, 1)")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        return x * dropout_mask(x, self.p)

    def add(self, residual: Tensor, x: Tensor) -> Tensor:
        """``residual + dropout(x)``, in one pass over memory."""
        if not self.training or self.p == 0.0:
            return residual + x
        if x.device.type != "cpu":
            return residual + F.dropout(x, self.p)
        return torch.addcmul(residual, x, dropout_mask(x, self.p).to(residual.dtype))


def dropout_mask(x: Tensor, p: float) -> Tensor:
    """Random factors of the shape and dtype of ``x``: 0 with probability ``p``, else 1/(1-p).

    Draws from torch's global CPU generator.
    """
    threshold = round(p * _LEVELS)
    draws = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(_INT64_MIN, None)
    levels = draws.view(torch.uint8)[: x.numel()].view(x.shape)
    # Comparing into the final type is vectorised; torch.where and casts of bool are not, and take
    # 8 times as long.
    kept = torch.ge(levels, threshold, out=torch.empty_like(x, requires_grad=False))
    return kept.mul_(_LEVELS / (_LEVELS - threshold))


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: Dropout) -> Tensor:
    """``F.scaled_dot_product_attention`` with the dropout of a layer.

    On the CPU torch's fused kernel has no dropout and a slow backward pass (2.4 times the cost of a
    whole training step in bfloat16), and it is slow for many short rows.

    Args:
        q: (B, heads, Q, D) queries.
        k, v: (B, heads, M, D) keys and values.
        mask: (Q, M) bool, True where a query may attend; or float, added to the scores.
    """
    trains = torch.is_grad_enabled()
    if q.device.type != "cpu" or not (trains or len(k) >= _FEW_ROWS):
        p = dropout.p if dropout.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
    # Keys before queries, (B, heads, M, Q): torch's softmax over a last axis of a few keys takes up
    # to ten times as long as over any other axis.
    scores = k @ q.transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is not None:
        mask, is_bool = mask.t(), mask.dtype == torch.bool
        scores = scores.masked_fill(~mask, -torch.inf) if is_bool else scores + mask
    return dropout(scores.softmax(-2)).transpose(-1, -2) @ v


class Conv1d(nn.Conv1d):
    """``nn.Conv1d``, up to four times as fast for the few rows of one robot.

    torch's convolution reorders its weights at every call. For a few rows that takes most of the
    time; the product of the weights with the columns of the input (im2col) reads them once.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T) -> (B, C_out, T / stride)."""
        if not _has_few_columns(self, x):
            return super().forward(x)
        padding = self.padding[0]
        columns = F.pad(x, (padding, padding)).unfold(2, self.kernel_size[0], self.stride[0])
        rows = columns.transpose(1, 2).flatten(2)  # (B, T, C_in * kernel)
        return F.linear(rows, self.weight.flatten(1), self.bias).transpose(1, 2)


class ConvTranspose1d(nn.ConvTranspose1d):
    """``nn.ConvTranspose1d``, likewise."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T) -> (B, C_out, T * stride)."""
        if not _has_few_columns(self, x):
            return super().forward(x)
        columns = (x.transpose(1, 2) @ self.weight.flatten(1)).transpose(1, 2)
        length = (x.shape[2] - 1) * self.stride[0] - 2 * self.padding[0] + self.kernel_size[0]
        y = F.fold(
            columns,
            (1, length),
            (1, self.kernel_size[0]),
            padding=(0, self.padding[0]),
            stride=(1, self.stride[0]),
        )
        return y.squeeze(2) + self.bias[:, None]


def _has_few_columns(conv: nn.Conv1d | nn.ConvTranspose1d, x: Tensor) -> bool:
    is_plain = conv.dilation == (1,) and conv.groups == 1 and conv.output_padding == (0,)
    is_plain = is_plain and conv.bias is not None and not isinstance(conv.padding, str)
    is_inference = not torch.is_grad_enabled() and x.device.type == "cpu"
    return is_plain and is_inference and x.shape[0] * x.shape[2] <= _FEW_COLUMNS


def image_layout(images: Tensor) -> Tensor:
    """Images (N, C, H, W) in the layout that 2-D convolutions are fastest with."""
    is_cpu = images.device.type == "cpu"
    return images.contiguous(memory_format=torch.channels_last) if is_cpu else images
