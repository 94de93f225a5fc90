"""Which steps of the stored episodes make up a training sample, computed without loops over steps.

A window of T steps may reach ``pad_before`` steps before its episode and ``pad_after`` steps past
its end; there the episode's first or last step is repeated. T = 4, pad_before = 1, pad_after = 1,
one episode of the steps a b c d e:

    window    0     1     2     3
    steps    aabc  abcd  bcde  cdee
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.util.errors import UserError


def create_indices(
    episode_ends: np.ndarray,
    sequence_length: int,
    episode_mask: np.ndarray,
    pad_before: int = 0,
    pad_after: int = 0,
    debug: bool = True,
) -> np.ndarray:
    """Every window of ``sequence_length`` steps that lies in an episode, padding allowed.

    Args:
        episode_ends: cumulative step counts (E,).
        sequence_length: steps of a window, T.
        episode_mask: (E,) bool, the episodes to use.
        pad_before: steps that a window may start before its episode, 0..T-1.
        pad_after: steps that a window may end after its episode, 0..T-1.
        debug: check the result.

    Returns:
        (W, 4) int64 rows ``[buffer_start, buffer_end, sample_start, sample_end]``: stored steps
        ``buffer_start:buffer_end`` are the window's steps ``sample_start:sample_end``, the rest of
        the window is padding. In the order of the stored steps.
    """
    pad_before = min(max(pad_before, 0), sequence_length - 1)
    pad_after = min(max(pad_after, 0), sequence_length - 1)
    ends = np.asarray(episode_ends, np.int64)
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    # First steps of an episode's windows: start - pad_before ... end - T + pad_after.
    counts = ends - starts - sequence_length + pad_after + pad_before + 1
    counts = np.where(episode_mask, np.maximum(counts, 0), 0)
    episode = np.repeat(np.arange(len(ends)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    first = starts[episode] - pad_before + within
    buffer_start = np.maximum(first, starts[episode])
    buffer_end = np.minimum(first + sequence_length, ends[episode])
    indices = np.stack(
        [buffer_start, buffer_end, buffer_start - first, buffer_end - first], axis=1
    ).astype(np.int64)
    if debug:
        stored, sampled = indices[:, 1] - indices[:, 0], indices[:, 3] - indices[:, 2]
        assert (stored == sampled).all()
        assert (stored > 0).all()
    return indices


def clamp_to_episode(
    steps: np.ndarray,
    offsets: npt.ArrayLike,
    episode_starts: np.ndarray,
    episode_ends: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Stored steps at ``offsets`` from ``steps``, edges of the episode repeated.

    Args:
        steps: (B,) stored step numbers.
        offsets: (K,) times relative to each step, in steps.
        episode_starts: (B,) first step of the episode that each step belongs to.
        episode_ends: (B,) one past its last step.

    Returns:
        indices (B, K) int64 inside the episode, and is_pad (B, K) bool, True where the wanted
        step is outside it.
    """
    wanted = np.asarray(steps, np.int64)[:, None] + np.asarray(offsets, np.int64)
    first = np.asarray(episode_starts, np.int64)[:, None]
    last = np.asarray(episode_ends, np.int64)[:, None] - 1
    indices = np.clip(wanted, first, last)
    return indices, indices != wanted


def get_val_mask(n_episodes: int, val_ratio: float, seed: int = 0) -> np.ndarray:
    """Draw the validation episodes: (n_episodes,) bool.

    At least one and at most all but one, except that ``val_ratio`` 0 draws none.
    """
    mask = np.zeros(n_episodes, dtype=bool)
    if val_ratio <= 0:
        return mask
    n_val = min(max(1, round(n_episodes * val_ratio)), n_episodes - 1)
    mask[np.random.default_rng(seed).choice(n_episodes, size=n_val, replace=False)] = True
    return mask


def downsample_mask(mask: np.ndarray, max_n: int | None, seed: int = 0) -> np.ndarray:
    """Keep at most ``max_n`` (None: all) of the True entries of ``mask``, drawn at random."""
    if max_n is None or mask.sum() <= max_n:
        return mask
    chosen = np.flatnonzero(mask)
    kept = np.zeros_like(mask)
    kept[np.random.default_rng(seed).choice(chosen, size=int(max_n), replace=False)] = True
    return kept


def kept_mask(n_episodes: int, exclude: Sequence[int]) -> np.ndarray:
    """The episodes that are not left out: (n_episodes,) bool.

    Args:
        exclude: numbers of episodes, from 0.

    Raises:
        UserError: one is not the number of an episode, or all of them are left out.
    """
    kept = np.ones(n_episodes, dtype=bool)
    for number in exclude:
        is_whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
        if not is_whole or not 0 <= number < n_episodes:
            raise UserError(
                f"task.dataset.exclude_episodes has {number!r}; use numbers from 0 to "
                f"{n_episodes - 1}"
            )
        kept[number] = False
    if not kept.any():
        raise UserError(
            f"task.dataset.exclude_episodes leaves none of {n_episodes} episodes; keep some"
        )
    return kept


def split_episodes(
    kept: np.ndarray, val_ratio: float, max_train_episodes: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Divide the kept episodes into training and validation, (E,) bool each."""
    val_mask = np.zeros_like(kept)
    val_mask[kept] = get_val_mask(int(kept.sum()), val_ratio, seed)
    return downsample_mask(kept & ~val_mask, max_train_episodes, seed), val_mask


class SequenceSampler:
    """Reads the windows of :func:`create_indices` from a buffer.

    Args:
        replay_buffer: the episodes.
        sequence_length: steps of a window, T.
        pad_before: steps that a window may start before its episode.
        pad_after: steps that a window may end after its episode.
        keys: arrays to read, None for all.
        key_first_k: by key, how many first steps are needed; the others are not read.
        episode_mask: (E,) bool, the episodes to use; None for all.
    """

    def __init__(
        self,
        replay_buffer: ReplayBuffer,
        sequence_length: int,
        pad_before: int = 0,
        pad_after: int = 0,
        keys: Sequence[str] | None = None,
        key_first_k: Mapping[str, int] | None = None,
        episode_mask: np.ndarray | None = None,
    ) -> None:
        if episode_mask is None:
            episode_mask = np.ones(replay_buffer.n_episodes, dtype=bool)
        self.replay_buffer = replay_buffer
        self.sequence_length = sequence_length
        self.keys = list(replay_buffer.keys() if keys is None else keys)
        self.key_first_k = dict(key_first_k or {})
        self.indices = create_indices(
            replay_buffer.episode_ends, sequence_length, episode_mask, pad_before, pad_after
        )

    def __len__(self) -> int:
        return len(self.indices)

    def sample_sequence(self, idx: int) -> dict[str, np.ndarray]:
        """Window ``idx``: an array (T, ...) by key, edges repeated.

        A key of ``key_first_k`` has its last needed step repeated up to T.
        """
        buffer_start, buffer_end, sample_start, _ = self.indices[idx]
        window = np.arange(self.sequence_length) - sample_start
        sample = {}
        for key in self.keys:
            needed = self.key_first_k.get(key, self.sequence_length)
            stop = min(buffer_end, buffer_start + max(1, needed - sample_start))
            rows = np.asarray(self.replay_buffer[key][buffer_start:stop])
            sample[key] = rows[np.clip(window, 0, len(rows) - 1)]
        return sample
