"""Several datasets as one, each with its share of the samples and its robot's own statistics."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from diffusion_policy.dataset.base_dataset import BaseDataset
from diffusion_policy.dataset.batch_order import BatchIndex
from diffusion_policy.dataset.normalization import fit_normalizer
from diffusion_policy.dataset.window_dataset import WindowDataset
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.spec.batch import Batch
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.spec.window import Window
from diffusion_policy.transforms.transform import Transform
from diffusion_policy.util.errors import UserError


class Mixture(BaseDataset):
    """Samples of several :class:`WindowDataset`, in batches of the same form.

    An epoch draws as many samples as the datasets have together, N: from each its weight's share
    of N, rounded. A dataset with fewer samples than its share is gone through several times; of
    one with more, every epoch draws others. Weights in proportion to the numbers of samples, or a
    single dataset, make an epoch of every sample once.

    Datasets of one embodiment share their statistics. Sample i counts through the datasets in
    their order, and validation goes through all held-out samples in that order.

    Args:
        shape_meta: observations and action, the same for all datasets.
        window: the time steps of a sample.
        datasets: by name, WindowDataset with all arguments but ``shape_meta``, ``window`` and
            ``transforms``.
        transforms: of the task, applied in every dataset.
        weights: by name, the relative share of an epoch's samples; 1 where one is missing.

    Raises:
        UserError: there is no dataset, one has no sample or another form of observations or
            actions, or a weight is not above 0 or has no dataset.
    """

    def __init__(
        self,
        shape_meta: Mapping[str, Any] | TaskSpec,
        window: Window,
        *,
        datasets: Mapping[str, Callable[..., WindowDataset]],
        transforms: Sequence[Transform] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        common: dict[str, Any] = {"shape_meta": shape_meta, "window": window}
        if transforms:  # a dataset of the user's own need not know them
            common["transforms"] = transforms
        members = {name: make(**common) for name, make in datasets.items()}
        weights = dict(weights or {})
        _check(members, weights)
        self.weights = np.array([float(weights.get(name, 1)) for name in members])
        self.names = tuple(members)
        names = {name for member in members.values() for name in member.embodiments}
        self.embodiments = tuple(sorted(names))
        self._set(list(members.values()))

    def _set(self, members: Sequence[WindowDataset]) -> None:
        self.members = members
        self.spec = members[0].spec
        self._ends = np.cumsum([len(member) for member in members])

    def get_validation_dataset(self) -> Mixture:
        """The held-out episodes of every dataset."""
        other = copy.copy(self)
        other._set([member.get_validation_dataset() for member in self.members])
        return other

    def get_normalizer(self, modes: Mapping[str, str]) -> LinearNormalizer:
        """:func:`fit_normalizer` on the training episodes of each embodiment."""
        fitted = {}
        for name in self.embodiments:
            own = [member for member in self.members if name in member.embodiments]

            def values(key: str, own: Sequence[WindowDataset] = own) -> np.ndarray:
                return np.concatenate([member.training_values(key) for member in own])

            fitted[name] = fit_normalizer(self.spec, modes, values)
        return fitted[name] if len(fitted) == 1 else LinearNormalizer.of_embodiments(fitted)

    @property
    def n_episodes(self) -> int:
        """Episodes that samples come from."""
        return sum(member.n_episodes for member in self.members)

    def episode_samples(self) -> list[np.ndarray]:
        """See :class:`BaseDataset`; one of each dataset after another, as long as they have any."""
        of_members = [
            [samples + end - len(member) for samples in member.episode_samples()]
            for end, member in zip(self._ends, self.members, strict=True)
        ]
        turns = itertools.zip_longest(*of_members)
        return [samples for turn in turns for samples in turn if samples is not None]

    @property
    def source(self) -> str:
        """See :class:`BaseDataset`."""
        named = zip(self.names, self.members, strict=True)
        return ", ".join(f"{name} {member.source}" for name, member in named)

    @property
    def fingerprint(self) -> str:
        """See :class:`BaseDataset`."""
        named = zip(self.names, self.members, strict=True)
        return ", ".join(f"{name} {member.fingerprint}" for name, member in named)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def draw_epoch(self, rng: np.random.Generator) -> np.ndarray:
        """See :class:`BaseDataset`; from each dataset its weight's share."""
        drawn = []
        shares = _apportion(len(self), self.weights)
        for end, member, share in zip(self._ends, self.members, shares, strict=True):
            times, rest = divmod(share, len(member))
            some = rng.choice(len(member), rest, replace=False)
            own = np.concatenate([np.tile(np.arange(len(member)), times), some])
            drawn.append(own + end - len(member))
        samples = np.concatenate(drawn)
        rng.shuffle(samples)
        return samples

    def evaluation_order(self) -> np.ndarray:
        """See :class:`BaseDataset`; evenly mixed, so that the first few stand for all of them."""
        places = [(np.arange(len(member)) + 0.5) / len(member) for member in self.members]
        return np.argsort(np.concatenate(places), kind="stable")

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        batch = self.__getitems__(BatchIndex(np.array([index % len(self)]), seed=0))
        return _row(batch)

    def __getitems__(self, index: BatchIndex | Sequence[int]) -> Any:
        """A batch, or for a list of numbers a list of samples; see :class:`BaseDataset`."""
        if not isinstance(index, BatchIndex):
            return [self[i] for i in index]
        owners = np.searchsorted(self._ends, index.samples, side="right")
        rows = [np.flatnonzero(owners == i) for i in range(len(self.members))]
        parts = [
            self._read(member, index.samples[own] - end + len(member), index.seed)
            for end, member, own in zip(self._ends, self.members, rows, strict=True)
            if len(own)
        ]
        return _join(parts, [own for own in rows if len(own)])

    def _read(self, member: WindowDataset, samples: np.ndarray, seed: int) -> Batch:
        batch = member.__getitems__(BatchIndex(samples, seed))
        ids = torch.tensor([self.embodiments.index(name) for name in member.embodiments])
        return {**batch, "embodiment": ids[batch["embodiment"]]}


def _check(members: Mapping[str, WindowDataset], weights: Mapping[str, float]) -> None:
    if not members:
        raise UserError("task.dataset.datasets is empty; name at least one dataset")
    for name, weight in weights.items():
        if name not in members:
            raise UserError(
                f"task.dataset.weights has {name!r}, which is no dataset; use {', '.join(members)}"
            )
        if not 0 < weight < float("inf"):
            raise UserError(
                f"task.dataset.weights.{name} is {weight}; use more than 0, or leave out the "
                "dataset"
            )
    (first_name, first), *others = members.items()
    for name, member in members.items():
        if not len(member):
            raise UserError(
                f"task.dataset.datasets.{name} has no sample; leave it out, or record longer "
                "episodes"
            )
    for name, member in others:
        if _form(member.spec) != _form(first.spec):
            raise UserError(
                f"task.dataset.datasets.{name} has {_form(member.spec)}, but {first_name} has "
                f"{_form(first.spec)}; transform them into one form"
            )


def _form(spec: TaskSpec) -> dict[str, str]:
    """Type and shape of everything in a batch, by key."""
    return {key: f"{field.type} {list(field.shape)}" for key, field in spec.fields.items()}


def _apportion(total: int, weights: np.ndarray) -> list[int]:
    """Whole numbers in proportion to the weights that add up to ``total``."""
    exact = total * weights / weights.sum()
    shares = np.floor(exact).astype(int)
    most_cut_off = np.argsort(shares - exact, kind="stable")
    shares[most_cut_off[: total - shares.sum()]] += 1
    return shares.tolist()


def _join(parts: Sequence[Batch], rows: Sequence[np.ndarray]) -> Batch:
    """One batch of the rows of several, each at its place."""
    if len(parts) == 1:
        return parts[0]
    joined: Batch = {}
    n_rows = sum(len(own) for own in rows)
    for key, value in parts[0].items():
        values = [part[key] for part in parts]
        if isinstance(value, dict):
            joined[key] = _join(values, rows)
        elif isinstance(value, list):
            texts = {
                row: text
                for own, part in zip(rows, values, strict=True)
                for row, text in zip(own.tolist(), part, strict=True)
            }
            joined[key] = [texts[row] for row in range(n_rows)]
        else:
            joined[key] = value.new_empty((n_rows, *value.shape[1:]))
            for own, part in zip(rows, values, strict=True):
                joined[key][torch.from_numpy(own)] = part
    return joined


def _row(batch: Batch) -> dict[str, Any]:
    return {k: _row(v) if isinstance(v, dict) else v[0] for k, v in batch.items()}
