"""The contract of whatever training reads, and its names in the original diffusion_policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from diffusion_policy.dataset.batch_order import BatchIndex
from diffusion_policy.model.common.normalizer import LinearNormalizer


class BaseDataset(Dataset[dict[str, Any]], ABC):
    """Samples to train on, in raw units, with times as the policy's Window asks.

    TrainWorkspace constructs it with the entries of ``task.dataset`` and with ``shape_meta`` and
    ``window``. A sample is a dict::

        obs               {key: (To, ...)}  float32, images uint8 (3, H, W)
        action            (T, Da) float32
        action_is_pad     (T,) bool         True outside the episode; left out: none is
    """

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def __getitem__(self, idx: int) -> dict[str, Any]:
        """Sample ``idx``."""

    @abstractmethod
    def get_normalizer(self, modes: Mapping[str, str]) -> LinearNormalizer:
        """Normaliser of every observation and the action.

        Args:
            modes: ``policy.normalization``, by modality.
        """

    @property
    def n_episodes(self) -> int:
        """Episodes that samples come from; 0 where that is unknown."""
        return 0

    def get_validation_dataset(self) -> BaseDataset:
        """The held-out samples; none unless a subclass says otherwise."""
        return _NoSamples()

    def __getitems__(self, index: BatchIndex | Sequence[int]) -> Any:
        """A batch as one dict of (B, ...) tensors, or for a list of numbers a list of samples."""
        if not isinstance(index, BatchIndex):
            return [self[i] for i in index]
        batch = default_collate([self[int(i)] for i in index.samples])
        batch.setdefault("action_is_pad", torch.zeros(batch["action"].shape[:2], dtype=torch.bool))
        return batch


class _NoSamples(BaseDataset):
    def __len__(self) -> int:
        return 0

    def __getitem__(self, idx: int) -> dict[str, Any]:
        raise IndexError(f"sample {idx} of none")

    def get_normalizer(self, modes: Mapping[str, str]) -> LinearNormalizer:
        raise NotImplementedError("normalisers are fitted on the training samples")


class BaseImageDataset(BaseDataset):
    """Base class of users' datasets; changed are the constructor and ``get_normalizer(modes)``."""

    def get_all_actions(self) -> Tensor:
        """The actions of all samples (N, Da); training does not ask for them."""
        raise NotImplementedError


class BaseLowdimDataset(BaseImageDataset):
    """Base class of users' datasets; ``obs`` is a dict by key of ``shape_meta`` here, too."""
