"""The one dataset: windows of demonstrations, driven by shape_meta and the policy's Window."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from diffusion_policy.dataset.array_cache import read_ahead
from diffusion_policy.dataset.batch_order import BatchIndex
from diffusion_policy.dataset.normalization import fit_normalizer
from diffusion_policy.dataset.readers import ArrayReader
from diffusion_policy.dataset.sampler import clamp_to_episode, downsample_mask, get_val_mask
from diffusion_policy.dataset.stores.checks import check_finite
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.spec.task_spec import Field, TaskSpec
from diffusion_policy.spec.window import Window
from diffusion_policy.util.errors import UserError

Reader = Callable[[ReplayBuffer, str | Path, str, Field], np.ndarray]
Symmetry = Callable[[str, np.ndarray], np.ndarray]


class WindowDataset(Dataset):
    """Training samples from recorded episodes.

    Sample i belongs to step t of some episode and holds, in raw units::

        obs               {key: (To, ...)}  at t + window.obs_offsets; float32, images uint8 CHW;
                                            window.future_obs_offsets behind them, if any
        action            (T, Da) float32   at t + window.action_offsets
        action_is_pad     (T,) bool         True where that lies outside the episode

    Episodes are divided into training and validation first; this object holds the training part
    and :meth:`get_validation_dataset` gives the other.

    Args:
        path: a zarr directory or zip, or a URL, in the ReplayBuffer layout.
        shape_meta: observations and action of the task.
        window: the time steps of a sample.
        reader: makes an observation's array from the store.
        val_ratio: share of episodes for validation; at least one episode unless 0.
        max_train_episodes: cap on training episodes, None for all.
        seed: draws validation and training episodes.
        symmetry: of the task: maps the values of an observation, or ``action``, to those of the
            mirrored world, given its name.
        mirrored: train on every sample twice, recorded and mirrored.

    Raises:
        UserError: a share or number of episodes is out of its range, ``mirrored`` is asked of a
            task without symmetry, or the data cannot be read,
            does not fit shape_meta, or holds NaN.
    """

    def __init__(
        self,
        path: str | Path,
        shape_meta: Mapping[str, Any] | TaskSpec,
        window: Window,
        *,
        reader: Reader | None = None,
        val_ratio: float = 0.02,
        max_train_episodes: int | None = None,
        seed: int = 42,
        symmetry: Symmetry | None = None,
        mirrored: bool = False,
    ) -> None:
        if not 0 <= val_ratio < 1:
            raise UserError(f"task.dataset.val_ratio is {val_ratio}; use a share from 0 to below 1")
        if max_train_episodes is not None and max_train_episodes < 1:
            raise UserError(
                f"task.dataset.max_train_episodes is {max_train_episodes}; "
                "use at least 1, or null for all"
            )
        if mirrored and symmetry is None:
            raise UserError(
                "task.dataset.mirrored is true, but task.dataset.symmetry is null; "
                "leave it false, or name the symmetry of the task"
            )
        self.shape_meta = TaskSpec.parse(shape_meta)
        self.window = window
        self.symmetry = symmetry if mirrored else None
        reader = reader or ArrayReader()
        buffer = ReplayBuffer.create_from_path(path)
        self.episode_ends = np.asarray(buffer.episode_ends[:], dtype=np.int64)
        if len(self.episode_ends) == 0:
            raise UserError(f"{path} holds no episode; record some or choose another dataset")

        action_field = Field(self.shape_meta.action.shape)
        self.action = ArrayReader().read_low_dim(buffer, "action", "action", action_field)
        self.obs = {
            key: reader(buffer, path, key, field) for key, field in self.shape_meta.obs.items()
        }
        for key, array in [("action", self.action), *self.obs.items()]:
            if self.symmetry is not None:
                self.symmetry(key, array[:1])  # fails here rather than in the first batch
            if array.dtype != np.uint8:
                check_finite(array, key, self.episode_ends)

        n_episodes = len(self.episode_ends)
        self.val_mask = get_val_mask(n_episodes, val_ratio, seed)
        self.train_mask = downsample_mask(~self.val_mask, max_train_episodes, seed)
        self._select(self.train_mask)

    def _select(self, episode_mask: np.ndarray) -> None:
        """Make every step of the chosen episodes a sample, as far as the window's padding goes."""
        starts = np.concatenate([[0], self.episode_ends[:-1]])
        # The last action of a sample may lie pad_after steps past the end.
        beyond = 0
        if self.window.pad_after is not None:
            beyond = max(0, self.window.action_offsets[-1] - self.window.pad_after)
        lengths = np.maximum(0, self.episode_ends - starts - beyond) * episode_mask
        self.episode_mask = episode_mask
        self._episodes = np.repeat(np.arange(len(starts)), lengths)
        first_sample = np.cumsum(lengths) - lengths
        self._steps = np.arange(lengths.sum()) - np.repeat(first_sample - starts, lengths)
        self._starts, self._ends = starts, self.episode_ends

    def get_validation_dataset(self) -> WindowDataset:
        """The held-out episodes as recorded, without jitter; shares the arrays."""
        other = copy.copy(self)
        other.symmetry = None
        other.window = replace(self.window, jitter=0)
        other._select(self.val_mask)
        return other

    def get_normalizer(self, modes: Mapping[str, str]) -> LinearNormalizer:
        """:func:`fit_normalizer` on the training episodes."""
        lengths = np.diff(self.episode_ends, prepend=0)
        rows = np.repeat(self.train_mask, lengths)
        arrays = {**self.obs, "action": self.action}
        return fit_normalizer(self.shape_meta, modes, lambda key: arrays[key][rows])

    @property
    def n_episodes(self) -> int:
        """Episodes that samples come from."""
        return int(self.episode_mask.sum())

    def __len__(self) -> int:
        return len(self._steps) * (1 if self.symmetry is None else 2)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample, see the class."""
        return self.__getitems__([index])[0]

    def __getitems__(self, index: BatchIndex | Sequence[int]) -> Any:
        """A whole batch in one read.

        A :class:`BatchIndex` gives the batch as one dict of (B, ...) tensors; a plain list of
        numbers gives a list of samples, as torch's DataLoader expects of any dataset.
        """
        if isinstance(index, BatchIndex):
            return self._gather(index.samples, np.random.default_rng(index.seed))
        samples = np.asarray(index)
        if ((samples < -len(self)) | (samples >= len(self))).any():
            raise IndexError(f"samples {list(index)} of {len(self)}")
        batch = self._gather(samples % len(self), np.random.default_rng(np.random.randint(2**31)))  # noqa: NPY002 -- torch seeds the global generator of each of its workers
        return [_pick(batch, i) for i in range(len(index))]

    def _gather(self, samples: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
        # Behind the recorded samples come the same mirrored.
        mirrored = np.flatnonzero(samples >= len(self._steps))
        samples = samples % len(self._steps)
        steps, episodes = self._steps[samples], self._episodes[samples]
        starts, ends = self._starts[episodes], self._ends[episodes]
        obs_offsets = np.array(self.window.sample_obs_offsets)
        action_offsets = np.array(self.window.action_offsets)
        if self.window.jitter:
            shift = rng.integers(-self.window.jitter, self.window.jitter, endpoint=True)
            obs_offsets[0] += shift
            action_offsets[0] += shift
        obs_steps, _ = clamp_to_episode(steps, obs_offsets, starts, ends)
        action_steps, is_pad = clamp_to_episode(steps, action_offsets, starts, ends)
        obs = {key: self._read(key, array, obs_steps, mirrored) for key, array in self.obs.items()}
        action = self._read("action", self.action, action_steps, mirrored)
        return {"obs": obs, "action": action, "action_is_pad": torch.from_numpy(is_pad)}

    def _read(
        self, key: str, array: np.ndarray, steps: np.ndarray, mirrored: np.ndarray
    ) -> torch.Tensor:
        """Rows ``steps`` (B, T) of an array, those of samples ``mirrored`` of 0..B-1 mirrored."""
        read_ahead(array, steps)
        values = array[steps]
        if len(mirrored):
            values[mirrored] = self.symmetry(key, values[mirrored])
        return torch.from_numpy(values)


def _pick(batch: dict[str, Any], i: int) -> dict[str, Any]:
    return {k: _pick(v, i) if isinstance(v, dict) else v[i] for k, v in batch.items()}
