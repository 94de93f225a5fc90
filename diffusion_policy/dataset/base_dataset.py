"""The contract of whatever training reads, and its names in the original diffusion_policy.

This module imports no torch, so that programs that only read configs can ask a class for its
settings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from diffusion_policy.dataset.batch_order import BatchIndex

if TYPE_CHECKING:
    from torch import Tensor

    from diffusion_policy.model.common.normalizer import LinearNormalizer


class BaseDataset(ABC):
    """Samples to train on, in raw units, with times as the policy's Window asks.

    TrainWorkspace constructs it with the entries of ``task.dataset`` and with ``shape_meta`` and
    ``window``. A sample is one row of a :data:`~diffusion_policy.spec.batch.Batch`::

        obs               {key: (To, ...)}  float32, images uint8 (3, H, W); a text is a str
        action            (T, Da) float32
        action_is_pad     (T,) bool         True outside the episode; left out: none is
        embodiment        int64             index into embodiments; left out: 0

    Attributes:
        embodiments: sorted names of the robots that the samples come from.
        settings_without_effect: constructor arguments, by convention of these names in every
            dataset, that change neither the samples nor their order.
    """

    embodiments: tuple[str, ...] = ("default",)
    settings_without_effect: ClassVar[tuple[str, ...]] = (
        "cache",
        "cache_dir",
        "symmetry",  # counts where mirrored does, which is compared
    )

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples that an epoch draws."""

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

    @property
    def source(self) -> str:
        """Where the samples come from, for messages; empty where that is unknown."""
        return ""

    @property
    def fingerprint(self) -> str:
        """What the data are, by their content; empty where that is unknown.

        A run goes on only with data of the same fingerprint. It is equal for a copy elsewhere.
        """
        return ""

    def episode_samples(self) -> list[np.ndarray]:
        """Numbers of the samples of each episode, in its order; none where that is unknown."""
        return []

    def draw_epoch(self, rng: np.random.Generator) -> np.ndarray:
        """Numbers of the samples of one epoch in training order, (len(self),) int64."""
        samples = np.arange(len(self))
        rng.shuffle(samples)
        return samples

    def evaluation_order(self) -> np.ndarray:
        """All samples, (len(self),) int64, in the order in which they are evaluated."""
        return np.arange(len(self))

    def get_validation_dataset(self) -> BaseDataset:
        """The held-out samples; none unless a subclass says otherwise."""
        return _NoSamples()

    def __getitems__(self, index: BatchIndex | Sequence[int]) -> Any:
        """A batch as one dict of (B, ...) tensors, or for a list of numbers a list of samples."""
        if not isinstance(index, BatchIndex):
            return [self[i] for i in index]
        import torch
        from torch.utils.data import default_collate

        batch = default_collate([self[int(i)] for i in index.samples])
        n_rows, n_actions = batch["action"].shape[:2]
        batch.setdefault("action_is_pad", torch.zeros(n_rows, n_actions, dtype=torch.bool))
        batch.setdefault("embodiment", torch.zeros(n_rows, dtype=torch.int64))
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
