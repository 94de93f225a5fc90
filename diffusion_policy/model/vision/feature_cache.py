"""Features of images that a network has encoded before; a control loop shows each image again."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn


class FeatureCache:
    """Remembers the features of images while an encoder acts; takes the place of its ``forward``.

    It serves features in evaluation mode, without gradients and on the CPU. It forgets them when
    the encoder trains, and when its weights are other tensors or have been written to. torch does
    not count what is written through ``weight.data``: that takes a :meth:`clear`.

    Args:
        encoder: encodes images (N, ...), each on its own.
        capacity: images remembered between calls. The images unused for longest are forgotten.
    """

    def __init__(self, encoder: nn.Module, capacity: int) -> None:
        self.encoder = encoder
        self.capacity = capacity
        self._encode = encoder.forward
        self._features: dict[bytes, Tensor] = {}  # unused for longest first
        self._made_by: tuple[Any, ...] = ()
        encoder.forward = self

    def clear(self) -> None:
        """Forget everything."""
        self._features.clear()

    def __call__(self, images: Tensor) -> Tensor:
        """Features of images (N, ...), as the encoder makes them."""
        if self.encoder.training or torch.is_grad_enabled():
            self.clear()
            return self._encode(images)
        if images.device.type != "cpu":
            return self._encode(images)
        return self._recall(images)

    @torch.compiler.disable
    def _recall(self, images: Tensor) -> Tensor:
        weights = [*self.encoder.parameters(), *self.encoder.buffers()]
        if any(weight.is_inference() for weight in weights):  # torch counts no changes of these
            return self._encode(images)
        made_by = (
            [(weight.data_ptr(), weight._version) for weight in weights],
            torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"),
            images.shape[1:],
            images.dtype,
        )
        if made_by != self._made_by:
            self._features, self._made_by = {}, made_by
        rows = images.contiguous().view(torch.uint8).numpy()
        keys = [hashlib.sha256(row).digest() for row in rows]
        new = {key: row for row, key in enumerate(keys) if key not in self._features}
        if new:
            encoded = self._encode(images[list(new.values())])
            # Copies, since a slice would keep its whole batch in memory.
            self._features |= {key: row.clone() for key, row in zip(new, encoded, strict=True)}
        for key in keys:
            self._features[key] = self._features.pop(key)
        features = torch.stack([self._features[key] for key in keys])
        for key in list(self._features)[: -self.capacity]:
            del self._features[key]
        return features
