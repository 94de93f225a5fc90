"""Pictures that a network has encoded before: a control loop shows each of them several times."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


class FeatureCache:
    """Remembers what a network made of a picture, by the picture's bytes.

    Only while the network acts: in evaluation mode, without gradients, on the CPU. What it
    remembers is forgotten when the weights are other tensors or have been written to; writing
    past torch's count of that, through ``weight.data``, takes a :meth:`clear`.

    Args:
        capacity: pictures remembered between calls; those unused for longest are forgotten.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._features: dict[bytes, Tensor] = {}  # unused for longest first
        self._made_by: tuple = ()

    def clear(self) -> None:
        """Forget everything."""
        self._features.clear()

    def __call__(self, encode: nn.Module, pictures: Tensor) -> Tensor:
        """``encode(pictures)`` of pictures (N, ...), where each is encoded on its own."""
        if encode.training or torch.is_grad_enabled() or pictures.device.type != "cpu":
            return encode(pictures)
        return self._recall(encode, pictures)

    @torch.compiler.disable
    def _recall(self, encode: nn.Module, pictures: Tensor) -> Tensor:
        weights = [*encode.parameters(), *encode.buffers()]
        if any(weight.is_inference() for weight in weights):  # whose changes torch does not count
            return encode(pictures)
        made_by = (
            [(weight.data_ptr(), weight._version) for weight in weights],
            torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"),
            pictures.shape[1:],
            pictures.dtype,
        )
        if made_by != self._made_by:
            self._features, self._made_by = {}, made_by
        rows = pictures.contiguous().view(torch.uint8).numpy()
        keys = [hashlib.sha256(row).digest() for row in rows]
        new = {key: row for row, key in enumerate(keys) if key not in self._features}
        if new:
            encoded = encode(pictures[list(new.values())])
            # Copies, since a slice would keep its whole batch in memory.
            self._features |= {key: row.clone() for key, row in zip(new, encoded, strict=True)}
        for key in keys:
            self._features[key] = self._features.pop(key)
        features = torch.stack([self._features[key] for key in keys])
        for key in list(self._features)[: -self.capacity]:
            del self._features[key]
        return features
