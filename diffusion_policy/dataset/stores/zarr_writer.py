"""Write episodes to a zarr folder, as ReplayBuffer lays them out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from diffusion_policy.dataset.stores.checks import as_rows
from diffusion_policy.dataset.stores.episode_store import EpisodeInfo
from diffusion_policy.dataset.stores.episode_writer import EpisodeWriter, Values
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.stores.zarr_encoding import CompressorsOption
from diffusion_policy.util.errors import UserError, writing

_STATES = "initial_state"


class ZarrWriter(EpisodeWriter):
    """Writes ``data/<key>`` and ``meta/episode_ends``, and ``meta/initial_state`` if there are any.

    Args:
        path: of the folder; episodes that are there stay.
        fps: recorded steps per second, if known.
        compressors: see :class:`ReplayBuffer`.

    Raises:
        UserError: the folder holds something else, or episodes of another ``fps``.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float | None = None,
        compressors: CompressorsOption = "default",
    ) -> None:
        self.path = Path(path)
        self.compressors = compressors
        _refuse_others(self.path)
        self.buffer = ReplayBuffer.create_from_path(path, mode="a")
        self._states = self.buffer.read_meta(_STATES)
        if self._states is not None:  # a kill leaves that of the episode that was written
            self._states = self._states[: self.n_episodes]
        if fps is not None:
            _set_fps(self.buffer, fps, self.path)

    @property
    def n_episodes(self) -> int:
        """See :class:`EpisodeWriter`."""
        return self.buffer.n_episodes

    def add_episode(self, values: Values, info: EpisodeInfo | None = None) -> None:
        """See :class:`EpisodeWriter`."""
        info = info or EpisodeInfo()
        rows = {key: as_rows(value[:]) for key, value in values.items()}
        self._add_task(rows, info.task)
        states = self._with_state(info.initial_state)
        if states is not None:
            self.buffer.update_meta({_STATES: states})
        self.buffer.add_episode(rows, compressors=self.compressors)
        self._states = states

    def finish(self) -> None:
        """See :class:`EpisodeWriter`; there is nothing left to do."""

    def _add_task(self, rows: dict[str, np.ndarray], task: str | None) -> None:
        """Give every step the task, if episodes have one."""
        wanted = "task" in self.buffer if self.n_episodes else task is not None
        if task and not wanted and "task" not in rows:
            raise UserError(
                f"{self.path} has no tasks, but this episode has {task!r}: give all episodes one"
            )
        if wanted and "task" not in rows and rows:
            rows["task"] = as_rows([task or ""] * len(next(iter(rows.values()))))

    def _with_state(self, state: np.ndarray | None) -> np.ndarray | None:
        """The initial states (E + 1, S) with that of a new episode; None without any."""
        if self.n_episodes and (state is None) != (self._states is None):
            raise UserError(
                f"{self.path} has {'no' if self._states is None else 'an'} initial state in its "
                f"first episode and {'none' if state is None else 'one'} in this: give all or none"
            )
        if state is None or self._states is None or not self.n_episodes:
            return None if state is None else state[None]
        if state.shape != self._states.shape[1:]:
            raise UserError(
                f"{self.path} has initial states of shape {self._states.shape[1:]}, but this "
                f"episode one of {state.shape}: write them to different data sets"
            )
        return np.concatenate([self._states, state[None]])


def _refuse_others(path: Path) -> None:
    """Refuse a folder that holds something else than a zarr group."""
    names = {found.name for found in path.iterdir()} if path.is_dir() else set()
    if path.is_file() or (names and not names & {"zarr.json", ".zgroup"}):
        raise UserError(f"{path} holds something else: choose another folder")


def _set_fps(buffer: ReplayBuffer, fps: float, path: Path) -> None:
    found: Mapping = buffer.root.attrs
    if buffer.n_episodes and found.get("fps", fps) != fps:
        raise UserError(
            f"{path} has episodes of {found['fps']} fps, not {fps}: choose another path"
        )
    if found.get("fps") != fps:
        with writing(path):
            buffer.root.attrs["fps"] = int(fps) if float(fps).is_integer() else fps
