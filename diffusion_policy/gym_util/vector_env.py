"""Many environments stepped side by side in worker processes, over one block of shared memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from diffusion_policy.gym_util.env_worker import TOTALS, EpisodeStart, WorkerSetup
from diffusion_policy.gym_util.make_env import make_env, observation_spaces
from diffusion_policy.gym_util.shared_arrays import Fields, SharedArrays
from diffusion_policy.util.config import plain
from diffusion_policy.util.cores import usable_cores

_CLOSE_TIMEOUT = 3.0  # seconds that workers have for closing their environments
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
"""Workers share the cores among themselves: none of them should start threads for all."""


class WorkerError(RuntimeError):
    """An environment failed, or its process died; the text names slot and seed and says why."""


@dataclass(frozen=True)
class EpisodeTotals:
    """Episodes so far, one row per slot asked for, in that order.

    Attributes:
        sum_reward, max_reward: (n,) float64 over the steps of the episode.
        best_step: (n,) int64, steps after which the max was reached first.
        success: (n,) bool, whether any step of the episode succeeded.
        length: (n,) int64, environment steps of the episode.
        done: (n,) bool, whether the episode has ended.
    """

    sum_reward: np.ndarray
    max_reward: np.ndarray
    best_step: np.ndarray
    success: np.ndarray
    length: np.ndarray
    done: np.ndarray


class VectorEnv:
    """``n_envs`` equal environments, each a slot that runs one episode after the other.

    Results depend on seeds and actions only, never on the number of workers or on timing. There
    is no automatic reset: the slot of an episode that has ended stays as it is.

    Args:
        env_spec: see :func:`diffusion_policy.gym_util.make_env.make_env`.
        n_envs: number of slots.
        n_workers: processes; None starts one per core that this process may use.
        obs_offsets: times, relative to now, of the To observations to hand out.
        n_action_steps: largest number of actions in one step.
        max_steps: steps after which an episode ends; None keeps the environment's own limit.
        video_fps: frames per second of recorded episodes.

    Attributes:
        obs_offsets, n_action_steps: as given.
        observation_spaces: {key: Box} of a single observation.
        action_space: Box of a single action.

    Raises:
        UserError: ``env_spec`` is wrong.
        WorkerError: an environment raised, or a worker process died. The workers are ended then.
    """

    def __init__(
        self,
        env_spec: Mapping[str, Any],
        n_envs: int,
        n_workers: int | None = None,
        *,
        obs_offsets: Sequence[int] = (0,),
        n_action_steps: int = 1,
        max_steps: int | None = None,
        video_fps: int = 10,
    ) -> None:
        if list(obs_offsets) != sorted(obs_offsets) or obs_offsets[-1] > 0:
            raise ValueError(f"obs_offsets={tuple(obs_offsets)} must be ascending and at most 0")
        env_spec = plain(env_spec)
        env = make_env(env_spec, max_steps)
        self.observation_spaces, self.action_space = observation_spaces(env), env.action_space
        env.close()

        n_workers = min(n_workers or usable_cores(), n_envs)
        fields = self._fields(n_envs, n_workers, len(obs_offsets), n_action_steps)
        self._arrays = SharedArrays(fields)
        self._seeds: list[int | None] = [None] * n_envs
        self.obs_offsets, self.n_action_steps = tuple(obs_offsets), n_action_steps
        self._started = np.zeros(n_envs, dtype=bool)
        # Neighbours go to different workers, so that the last few episodes of a run spread out.
        self._worker_of = [slot % n_workers for slot in range(n_envs)]
        self._workers: list[_WorkerHandle] = []
        self._finalizer = weakref.finalize(self, _shut_down, self._workers, os.getpid())
        try:
            for _ in range(n_workers):
                self._workers.append(_WorkerHandle(self._arrays.fd))
            self._command(
                {
                    index: asdict(
                        WorkerSetup(
                            index=index,
                            slots=list(range(index, n_envs, n_workers)),
                            env_spec=env_spec,
                            max_steps=max_steps,
                            obs_offsets=self.obs_offsets,
                            video_fps=video_fps,
                            memory_fd=self._arrays.fd,
                            fields=fields,
                        )
                    )
                    for index in range(n_workers)
                }
            )
        finally:
            os.close(self._arrays.fd)

    def _fields(self, n_envs: int, n_workers: int, n_obs_steps: int, n_action_steps: int) -> Fields:
        observations = {
            f"obs/{key}": ((n_envs, n_obs_steps, *space.shape), space.dtype.str)
            for key, space in self.observation_spaces.items()
        }
        action = self.action_space
        return {
            **observations,
            "action": ((n_envs, n_action_steps, *action.shape), action.dtype.str),
            **{name: ((n_envs,), dtype) for name, dtype in TOTALS.items()},
            "current_slot": ((n_workers,), "i8"),
        }

    @property
    def n_envs(self) -> int:
        """Number of slots."""
        return len(self._worker_of)

    @property
    def closed(self) -> bool:
        """Whether the workers have ended, by :meth:`close` or by an error."""
        return not self._workers

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.process.pid for worker in self._workers]

    def reset(
        self,
        slots: Sequence[int],
        seeds: Sequence[int | None],
        options: Sequence[Mapping[str, Any] | None] | None = None,
        video_paths: Sequence[str | Path | None] | None = None,
    ) -> None:
        """Begin an episode in each of ``slots``.

        Args:
            slots: n different slots.
            seeds: n seeds.
            options: n dicts of plain data for the environment's ``reset``; None gives none.
            video_paths: n paths of mp4 files to record to, None where nothing is recorded.
        """
        nothing = [None] * len(slots)
        commands: dict[int, tuple] = {}
        for slot, seed, option, path in zip(
            slots, seeds, options or nothing, video_paths or nothing, strict=True
        ):
            start = EpisodeStart(slot, seed, plain(option), path and str(Path(path).absolute()))
            commands.setdefault(self._worker_of[slot], ("reset", []))[1].append(start)
            self._seeds[slot] = seed
            self._started[slot] = True
        self._command(commands)

    def observe(self, slots: Sequence[int]) -> dict[str, np.ndarray]:
        """{key: (n, To, ...)}, a copy of what each of ``slots`` observed at ``obs_offsets``.

        Times before the episode show its first observation.
        """
        return {key: self._arrays[f"obs/{key}"][slots] for key in self.observation_spaces}

    def step(self, slots: Sequence[int], actions: np.ndarray) -> EpisodeTotals:
        """Execute up to Ta actions in each of ``slots``, fewer where the episode ends before.

        Args:
            slots: n different slots.
            actions: (n, Ta, Da), Ta at most ``n_action_steps``.
        """
        if not self._started[slots].all():
            raise ValueError(f"a slot of {list(slots)} has no episode: reset it first")
        n_steps = actions.shape[1]
        self._arrays["action"][slots, :n_steps] = actions
        commands: dict[int, tuple] = {}
        for slot in slots:
            commands.setdefault(self._worker_of[slot], ("step", [], n_steps))[1].append(slot)
        self._command(commands)
        return EpisodeTotals(**{name: self._arrays[name][slots] for name in TOTALS})

    def _command(self, commands: Mapping[int, Any]) -> None:
        """Send each worker its command, and wait until all are done."""
        if self.closed:
            raise ValueError("the VectorEnv is closed")
        try:
            for index, command in commands.items():
                self._workers[index].connection.send(command)
            waiting = {self._workers[index].connection: index for index in commands}
            while waiting:
                for connection in wait(list(waiting)):
                    index = waiting.pop(connection)
                    failure = connection.recv()
                    if failure is not None:
                        self._fail(index, f"raised:\n{failure}")
        except (EOFError, OSError):
            self._fail(index, self._workers[index].obituary())
        except BaseException:
            # Interrupted (Ctrl-C): answers are still on their way, nothing can follow them.
            self.close()
            raise

    def _fail(self, index: int, reason: str) -> NoReturn:
        slot = int(self._arrays["current_slot"][index])
        message = f"environment in slot {slot} (seed {self._seeds[slot]}) {reason}"
        self.close()
        raise WorkerError(message) from None

    def close(self) -> None:
        """End the workers; may be called twice."""
        self._finalizer()

    def __enter__(self) -> VectorEnv:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _WorkerHandle:
    """The parent's side of a worker process, which is started but not waited for."""

    def __init__(self, memory_fd: int) -> None:
        self.connection, theirs = Pipe()
        try:
            self.process = _start_worker(theirs, memory_fd)
        except BaseException:
            self.connection.close()
            raise
        finally:
            # Only the worker may hold its end, or its death would go unnoticed.
            theirs.close()

    def obituary(self) -> str:
        """How the process died, for a sentence about the environment it was busy with."""
        try:
            code = self.process.wait(_CLOSE_TIMEOUT)
        except subprocess.TimeoutExpired:
            return "is lost: its worker process has hung up"
        if code < 0:
            return f"is lost: its worker process was killed by {signal.Signals(-code).name}"
        return f"is lost: its worker process exited with code {code}"


def _start_worker(connection: Connection, memory_fd: int) -> subprocess.Popen:
    arguments = [str(connection.fileno()), str(os.getpid())]
    # -P: the current folder must not hide installed modules; what the parent can import, the
    # worker must be able to import too.
    module = "diffusion_policy.gym_util.env_worker"
    python_path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-X", "faulthandler", "-m", module, *arguments],
        pass_fds=[connection.fileno(), memory_fd],
        stdin=subprocess.DEVNULL,
        env={**os.environ, **_ONE_THREAD, "PYTHONPATH": python_path},
        # Ctrl-C is for the parent, which then ends its workers.
        start_new_session=True,
    )


def _shut_down(workers: list[_WorkerHandle], owner_pid: int) -> None:
    """Hang up on every worker, wait for it, kill it if it does not go."""
    if os.getpid() != owner_pid:
        return  # a forked copy of the parent is being torn down; the workers are not its own
    for worker in workers:
        worker.connection.close()
    deadline = time.monotonic() + _CLOSE_TIMEOUT
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
    workers.clear()
