"""The one dataset: windows of demonstrations, driven by shape_meta and the policy's Window."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusion_policy.dataset.base_dataset import BaseDataset
from diffusion_policy.dataset.batch_order import BatchIndex
from diffusion_policy.dataset.normalization import fit_normalizer
from diffusion_policy.dataset.sampler import clamp_to_episode, kept_mask, split_episodes
from diffusion_policy.dataset.stores.checks import check_finite
from diffusion_policy.dataset.stores.episode_store import TASK, EpisodeStore
from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.spec.batch import Batch
from diffusion_policy.spec.task_spec import Field, TaskSpec
from diffusion_policy.spec.window import Window
from diffusion_policy.transforms.images import Resize
from diffusion_policy.transforms.pipeline import Pipeline
from diffusion_policy.transforms.transform import Transform
from diffusion_policy.util.errors import UserError, require

StoreClass = Callable[..., EpisodeStore]
Symmetry = Callable[[str, Any], Any]

_MOST_DEPTH_IMAGES = 1000
"""Depth images whose pixels the normaliser is fitted on: 77 million of them at 240 x 320."""
_MOST_ROWS = 4096
"""Steps that are transformed at once to fit the normaliser: chunks of poses take 10 kB each."""


class WindowDataset(BaseDataset):
    """Training samples from recorded episodes.

    Sample i belongs to step t of some episode and holds, in raw units and then transformed::

        obs               {key: (To, ...)}  at t + window.obs_offsets; float32, images uint8 CHW;
                                            window.future_obs_offsets behind them, if any;
                                            a text is the str at t; ``task``, where nothing of
                                            that name is recorded, is the task of the episode
        action            (T, Da) float32   at t + window.action_offsets
        action_is_pad     (T,) bool         True where that lies outside the episode
        embodiment        int64             0, the only one

    Episodes are divided into training and validation first; this object holds the training part
    and :meth:`get_validation_dataset` gives the other.

    Args:
        path: of the episodes, or a store of them.
        shape_meta: observations and action of the task, as recorded.
        window: the time steps of a sample.
        transforms: of the task, to what the policy sees; see :class:`Pipeline`.
        store: called with the path and ``cache_dir``, opens the episodes; None recognises them by
            their content.
        cache_dir: where what is decoded once is kept.
        cache: of decoded images of stores that can do without: none, disk or memory; None leaves
            it to the store.
        embodiment: name of the robot in these episodes; None is that of the task.
        val_ratio: share of episodes for validation; at least one episode unless 0.
        max_train_episodes: cap on training episodes, None for all.
        seed: draws validation and training episodes.
        drop_first: steps at the start of every episode that are no sample's step t, such as those
            before the robot moves. Windows and statistics still read them.
        drop_last: likewise at the end.
        exclude_episodes: numbers, from 0, of episodes that nothing reads: neither samples nor
            validation nor statistics.
        filter: name of the list of episodes of an HDF5 file to read, such as ``20_percent``; the
            numbers above then count in that list.
        symmetry: of the task: maps the values of an observation, or ``action``, to those of the
            mirrored world, given its name.
        mirrored: train on every sample twice, recorded and mirrored.

    Raises:
        UserError: a share or number of episodes or steps is out of its range, ``mirrored`` is set
            for a task without symmetry, or the data cannot be read, do not fit the task, or hold
            NaN.
    """

    def __init__(
        self,
        path: str | Path | EpisodeStore,
        shape_meta: Mapping[str, Any] | TaskSpec,
        window: Window,
        *,
        transforms: Sequence[Transform] | None = None,
        store: StoreClass | None = None,
        cache_dir: str | Path = "data/cache",
        cache: str | None = None,
        embodiment: str | None = None,
        val_ratio: float = 0.02,
        max_train_episodes: int | None = None,
        seed: int = 42,
        drop_first: int = 0,
        drop_last: int = 0,
        exclude_episodes: Sequence[int] | None = None,
        filter: str | None = None,
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
        for name, value in (("drop_first", drop_first), ("drop_last", drop_last)):
            is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
            require(is_count, f"task.dataset.{name}", value, "use a number of steps, 0 or more")
        if mirrored and symmetry is None:
            raise UserError(
                "task.dataset.mirrored is true, but task.dataset.symmetry is null; "
                "leave it false, or name the symmetry of the task"
            )
        spec = TaskSpec.parse(shape_meta, embodiment=embodiment)
        self.pipeline = Pipeline.of(transforms, spec)
        self.spec = self.pipeline.spec
        _check_steps(self.pipeline, window)
        self.embodiments = (self.spec.embodiment or "default",)
        # As the store reads them: it may scale images.
        self._shapes = {key: field.shape for key, field in spec.fields.items()}
        self.window = window
        self._action_now = _first_from_now(window.action_offsets)
        self.symmetry = symmetry if mirrored else None
        self.path = "" if isinstance(path, EpisodeStore) else str(path)
        self.store = _open(path, store, cache_dir, cache, filter)
        if not isinstance(path, EpisodeStore):  # which others may read, too
            self._scale_early()
        self.episode_ends = self.store.episode_ends
        if len(self.episode_ends) == 0:
            raise UserError(
                f"{self.path or 'the store'} holds no episode; record some or choose another data "
                "set"
            )
        self._drop_first, self._drop_last = drop_first, drop_last
        kept = kept_mask(len(self.episode_ends), exclude_episodes or ())
        self._check_store(kept)
        self.train_mask, self.val_mask = split_episodes(kept, val_ratio, max_train_episodes, seed)
        self._select(self.train_mask, "training")

    def _scale_early(self) -> None:
        """Let the store scale images where it decodes them, if that is the first change of all.

        The transform that would scale them finds nothing to do then.
        """
        if self.symmetry is not None:  # which is of the recorded images
            return
        for transform in self.pipeline.transforms:
            if not isinstance(transform, Resize):
                return
            for key in transform.keys_in(self.pipeline.raw_spec):
                field = self.pipeline.raw_spec.obs[key]
                smaller = transform.height * transform.width < field.shape[1] * field.shape[2]
                if (
                    field.type == "rgb"
                    and smaller
                    and self._shapes[key] == field.shape
                    and self.store.scale(key, transform.height, transform.width)
                ):
                    self._shapes[key] = (3, transform.height, transform.width)

    def _check_store(self, kept: np.ndarray) -> None:
        """Find what is wrong with the kept episodes here rather than in the middle of training."""
        spec = self.pipeline.raw_spec
        if spec.fps and self.store.fps and spec.fps != self.store.fps:
            raise UserError(
                f"task.fps is {spec.fps} but the data set has {self.store.fps} steps per "
                "second; correct task.fps"
            )
        self._tasks = self._episode_tasks()
        self.store.prepare(self._recorded_fields())
        for key, field in spec.fields.items():
            if self.symmetry is not None:
                self.symmetry(key, self._read(key, np.arange(1)))
            if field.type == "low_dim":
                values = self._read(key, np.arange(self.store.n_steps))
                values[~np.repeat(kept, np.diff(self.episode_ends, prepend=0))] = 0
                check_finite(values, key, self.episode_ends)

    def _recorded_fields(self) -> dict[str, Field]:
        """What is read of the store; the action first, so that other data is named as such."""
        fields = {"action": self.pipeline.raw_spec.action, **self.pipeline.raw_spec.obs}
        if self._tasks is not None:
            del fields[TASK]
        return fields

    def _episode_tasks(self) -> list[str] | None:
        """The task of each episode; None unless one is observed and none is recorded by step."""
        field = self.pipeline.raw_spec.obs.get(TASK)
        if field is None or field.type != "text" or TASK in self.store.features:
            return None
        tasks = []
        for i in range(len(self.episode_ends)):
            task = self.store.episode(i).task
            if task is None:
                raise UserError(
                    f"shape_meta.obs.{TASK} is a text but episode {i} has no task; record one for "
                    "each episode, or remove the observation"
                )
            tasks.append(task)
        return tasks

    def _select(self, episode_mask: np.ndarray, purpose: str) -> None:
        """Make the steps of the chosen episodes samples, as far as the window's padding goes."""
        starts = np.concatenate([[0], self.episode_ends[:-1]])
        first = starts + self._drop_first
        # The last action of a sample may lie pad_after steps past the end.
        beyond = self._drop_last
        if self.window.pad_after is not None:
            beyond = max(beyond, self.window.action_offsets[-1] - self.window.pad_after)
        lengths = np.maximum(0, self.episode_ends - first - beyond) * episode_mask
        self.episode_mask = lengths > 0
        if n_short := int((episode_mask & ~self.episode_mask).sum()):
            warnings.warn(
                f"{n_short} of {int(episode_mask.sum())} {purpose} episodes are too short to give "
                "a sample: the window of this policy needs more than "
                f"{self._drop_first + beyond} steps",
                stacklevel=2,
            )
        self._episodes = np.repeat(np.arange(len(starts)), lengths)
        first_sample = np.cumsum(lengths) - lengths
        self._steps = np.arange(lengths.sum()) - np.repeat(first_sample - first, lengths)
        self._starts, self._ends = starts, self.episode_ends

    def get_validation_dataset(self) -> WindowDataset:
        """The held-out episodes as recorded, without jitter; shares the store."""
        other = copy.copy(self)
        other.symmetry = None
        other.window = replace(self.window, jitter=0)
        other._select(self.val_mask, "validation")
        return other

    def get_normalizer(self, modes: Mapping[str, str]) -> LinearNormalizer:
        """:func:`fit_normalizer` on the training episodes."""
        return fit_normalizer(self.spec, modes, self.training_values)

    def training_values(self, key: str) -> np.ndarray:
        """(n, *shape) of an observation or the action, transformed, to fit a normaliser on.

        They are those at all steps of the training episodes; depth images are a thousand at most,
        evenly spaced. If an action depends on the observation of its chunk, they are those of the
        chunks of all these steps, without the steps outside the episode.
        """
        lengths = np.diff(self.episode_ends, prepend=0)
        steps = np.flatnonzero(np.repeat(self.train_mask, lengths))
        if self.spec.fields[key].type == "depth":
            steps = steps[:: -(-len(steps) // _MOST_DEPTH_IMAGES)]
        if not self.pipeline.transforms:
            return self._read(key, steps)
        rows = range(0, len(steps), _MOST_ROWS)
        return np.concatenate([self._to_fit(key, steps[i : i + _MOST_ROWS]) for i in rows])

    def _to_fit(self, key: str, steps: np.ndarray) -> np.ndarray:
        """:meth:`training_values` of these steps."""
        is_action = key == "action"
        in_chunks = is_action and self.pipeline.reads_obs
        offsets = self.window.action_offsets if in_chunks else (0,)
        episodes = np.searchsorted(self.episode_ends, steps, side="right")
        is_depth = self.spec.fields[key].type == "depth"
        left_out = ("rgb",) if is_depth else ("rgb", "depth")
        batch = self._recorded(steps, episodes, (0,), offsets, left_out)
        if not is_action:
            del batch["action"]
        batch["action_now"] = _first_from_now(offsets)
        batch = self.pipeline.forward(batch)
        return batch["action"][~batch["action_is_pad"]] if is_action else batch["obs"][key][:, 0]

    @property
    def n_episodes(self) -> int:
        """Episodes that samples come from."""
        return int(self.episode_mask.sum())

    def episode_samples(self) -> list[np.ndarray]:
        """See :class:`BaseDataset`; of the recorded samples alone, not of the mirrored ones."""
        samples = np.arange(len(self._episodes))
        return (
            np.split(samples, np.flatnonzero(np.diff(self._episodes)) + 1) if len(samples) else []
        )

    @property
    def source(self) -> str:
        """See :class:`BaseDataset`."""
        return self.path

    @cached_property
    def fingerprint(self) -> str:
        """See :class:`BaseDataset`."""
        digest = self.store.fingerprint(self._recorded_fields())
        return f"{len(self.episode_ends)} episodes of {self.store.n_steps} steps ({digest})"

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

    def _gather(self, samples: np.ndarray, rng: np.random.Generator) -> Batch:
        """The batch of these samples, in tensors."""
        # Behind the recorded samples come the same mirrored.
        mirrored = np.flatnonzero(samples >= len(self._steps))
        samples = samples % len(self._steps)
        steps, episodes = self._steps[samples], self._episodes[samples]
        obs_offsets = np.array(self.window.sample_obs_offsets)
        action_offsets = np.array(self.window.action_offsets)
        if self.window.jitter:
            shift = rng.integers(-self.window.jitter, self.window.jitter, endpoint=True)
            obs_offsets[0] += shift
            action_offsets[0] += shift
        batch = self._recorded(steps, episodes, obs_offsets, action_offsets)
        if self.symmetry is not None and len(mirrored):
            _mirror(self.symmetry, batch, mirrored)
        batch["embodiment"] = np.zeros(len(samples), np.int64)
        batch["obs_now"] = len(self.window.obs_offsets) - 1
        batch["action_now"] = self._action_now
        batch = self.pipeline.forward(batch)
        del batch["obs_now"], batch["action_now"]
        return to_tensors(batch)

    def _recorded(
        self,
        steps: np.ndarray,
        episodes: np.ndarray,
        obs_offsets: Sequence[int] | np.ndarray,
        action_offsets: Sequence[int] | np.ndarray,
        left_out: Sequence[str] = (),
    ) -> Batch:
        """The batch of these steps, not transformed, without the types that are left out."""
        starts, ends = self._starts[episodes], self._ends[episodes]
        obs_steps, _ = clamp_to_episode(steps, obs_offsets, starts, ends)
        action_steps, is_pad = clamp_to_episode(steps, action_offsets, starts, ends)
        obs = {
            key: self._read(key, steps if field.type == "text" else obs_steps)
            for key, field in self.pipeline.raw_spec.obs.items()
            if field.type not in left_out
        }
        return {"obs": obs, "action": self._read("action", action_steps), "action_is_pad": is_pad}

    def _read(self, key: str, steps: np.ndarray) -> Any:
        """Values (*steps.shape, *shape) in the shape of the task, or a list of texts."""
        if key == TASK and self._tasks is not None:
            episodes = np.searchsorted(self.episode_ends, steps, side="right")
            return [self._tasks[episode] for episode in episodes]
        values = self.store.read(key, steps)
        if isinstance(values, list):
            return values
        return values.reshape(*steps.shape, *self._shapes[key])


def _open(
    path: str | Path | EpisodeStore,
    store: StoreClass | None,
    cache_dir: str | Path,
    cache: str | None,
    filter: str | None,
) -> EpisodeStore:
    """The episodes at a path, those in a list of the file where one is named."""
    remedies = {
        "filter": "these episodes are in no lists; leave it null, or name those to leave out in "
        "task.dataset.exclude_episodes",
        "cache": "this store has no choice of a cache; leave it null",
    }
    asked = {"filter": filter, "cache": cache}
    options = {name: str(value) for name, value in asked.items() if value is not None}
    for name, value in options.items():
        is_known = store is None or name in inspect.signature(store).parameters
        if isinstance(path, EpisodeStore) or not is_known:
            raise UserError(f"task.dataset.{name} is {value!r}, but {remedies[name]}")
    if isinstance(path, EpisodeStore):
        return path
    return (store or open_store)(path, cache_dir=cache_dir, **options)


def _first_from_now(offsets: Sequence[int]) -> int:
    """Index of the first offset that is not in the past."""
    return int(np.searchsorted(offsets, 0))


def _mirror(symmetry: Symmetry, batch: Batch, rows: np.ndarray) -> None:
    """Put the mirrored samples in the place of these rows."""
    for key, values in [("action", batch["action"]), *batch["obs"].items()]:
        if isinstance(values, list):
            texts = symmetry(key, [values[row] for row in rows])
            for row, text in zip(rows, texts, strict=True):
                values[row] = text
        else:
            values[rows] = symmetry(key, values[rows])


def _check_steps(pipeline: Pipeline, window: Window) -> None:
    """Refuse changes from step to step where the window leaves steps out."""
    first, last = window.action_offsets[0], window.action_offsets[-1]
    steps = window.action_offsets
    if pipeline.chains_actions and (window.jitter or steps != tuple(range(first, last + 1))):
        raise UserError(
            f"task.transforms makes each action a change from the one before it, but the policy "
            f"predicts the steps {list(steps)}, which leave some out; use relative actions"
        )


def to_tensors(batch: Batch) -> Batch:
    """A batch of numpy arrays as one of tensors that share their memory; texts stay lists."""
    return {
        key: to_tensors(value)
        if isinstance(value, dict)
        else torch.from_numpy(value)
        if isinstance(value, np.ndarray)
        else value
        for key, value in batch.items()
    }


def _pick(batch: Batch, i: int) -> dict[str, Any]:
    return {k: _pick(v, i) if isinstance(v, dict) else v[i] for k, v in batch.items()}
