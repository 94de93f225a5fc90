"""Many environments stepped side by side in worker processes, over one block of shared memory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np

from diffusion_policy.gym_util.env_worker import (
    TOTALS,
    EpisodeStart,
    WorkerSetup,
    status_fields,
)
from diffusion_policy.gym_util.shared_arrays import Fields, SharedArrays, create_block
from diffusion_policy.gym_util.spaces import ArraySpace, EnvSpaces, TextSpace
from diffusion_policy.spec.start import Start
from diffusion_policy.util.config import plain
from diffusion_policy.util.cores import usable_cores
from diffusion_policy.util.errors import UserError

DEFAULT_TIMEOUT_S = 100.0
"""A simulator that takes longer for one step is more likely to hang than to be slow."""
_CLOSE_TIMEOUT = 3.0  # seconds that workers have for closing their environments
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
"""Workers share the cores among themselves: none of them should start threads for all."""


class WorkerError(UserError):
    """An environment raised or hangs, or its process died; the text names slot, start and cause.

    Where it raised, the traceback is a note of the error (``__notes__``).
    """


@dataclass(frozen=True)
class EpisodeTotals:
    """Episodes so far, one row per slot asked for, in that order.

    Attributes:
        sum_reward, max_reward: (n,) float64 over the steps of the episode.
        best_step: (n,) int64, steps after which the max was reached first.
        success: (n,) bool, whether any step of the episode succeeded.
        tells_success: (n,) bool, whether any step said so or not.
        length: (n,) int64, environment steps of the episode.
        done: (n,) bool, whether the episode has ended.
    """

    sum_reward: np.ndarray
    max_reward: np.ndarray
    best_step: np.ndarray
    success: np.ndarray
    tells_success: np.ndarray
    length: np.ndarray
    done: np.ndarray


class VectorEnv:
    """``n_envs`` equal environments, each a slot that runs one episode after the other.

    Environments are built in the workers only. Results depend on starts and actions only, never on
    the number of workers or on timing. There is no automatic reset: the slot of an episode that has
    ended stays as it is.

    Args:
        env_spec: see :func:`diffusion_policy.gym_util.make_env.make_env`.
        n_envs: number of slots.
        n_workers: processes; None starts one per core that this process may use.
        obs_offsets, n_action_steps: see :meth:`configure`.
        max_steps: steps after which an episode ends; None keeps the environment's own limit.
        video_fps: frames per second of recorded episodes.
        timeout_s: seconds that one construction, reset or step of an environment may take.

    Attributes:
        spaces: what a single environment observes and takes.
        obs_offsets, n_action_steps: as configured last.

    Raises:
        UserError: ``env_spec`` is wrong, or a reward is not finite.
        WorkerError: an environment raised or took too long, or a worker process died.

    The workers are ended after each of these errors.
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
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        n_workers = min(n_workers or usable_cores(), n_envs)
        self._timeout_s = timeout_s
        self._starts: list[Start | None] = [None] * n_envs
        # Neighbours go to different workers, so that the last few episodes of a run spread out.
        self._worker_of = [slot % n_workers for slot in range(n_envs)]
        self._workers: list[_WorkerHandle] = []
        self._memory_fd = create_block()
        self._arrays = SharedArrays(status_fields(n_workers), self._memory_fd)
        self._finalizer = weakref.finalize(
            self, _shut_down, self._workers, self._memory_fd, os.getpid()
        )
        for _ in range(n_workers):
            self._workers.append(_WorkerHandle(self._memory_fd))
        self.spaces: EnvSpaces = self._command(
            {
                index: asdict(
                    WorkerSetup(
                        index=index,
                        n_workers=n_workers,
                        slots=list(range(index, n_envs, n_workers)),
                        env_spec=plain(env_spec),
                        max_steps=max_steps,
                        video_fps=video_fps,
                        memory_fd=self._memory_fd,
                    )
                )
                for index in range(n_workers)
            }
        )[0]
        self.configure(obs_offsets, n_action_steps)

    def configure(self, obs_offsets: Sequence[int], n_action_steps: int) -> None:
        """Set what :meth:`observe` and :meth:`step` exchange; running episodes are dropped.

        Args:
            obs_offsets: times, relative to now, of the To observations to hand out; ascending, at
                most 0.
            n_action_steps: largest number of actions in one step.
        """
        if list(obs_offsets) != sorted(obs_offsets) or obs_offsets[-1] > 0:
            raise ValueError(f"obs_offsets={tuple(obs_offsets)} must be ascending and at most 0")
        self.obs_offsets, self.n_action_steps = tuple(obs_offsets), n_action_steps
        self._starts = [None] * self.n_envs
        fields = self._fields()
        self._arrays = SharedArrays(fields, self._memory_fd)
        share = ("share", fields, self.obs_offsets)
        self._command(dict.fromkeys(range(len(self._workers)), share))

    def _fields(self) -> Fields:
        n_envs, action = self.n_envs, self.spaces.action
        return {
            **status_fields(len(self._workers)),
            **{
                f"obs/{key}": self._observation_field(space)
                for key, space in self.spaces.observations.items()
            },
            "action": ((n_envs, self.n_action_steps, *action.shape), action.dtype),
            **{name: ((n_envs,), dtype) for name, dtype in TOTALS.items()},
        }

    def _observation_field(self, space: ArraySpace | TextSpace) -> tuple[tuple[int, ...], str]:
        if isinstance(space, TextSpace):  # of the latest step alone
            return (self.n_envs,), f"<U{space.max_length}"
        return (self.n_envs, len(self.obs_offsets), *space.shape), space.dtype

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
        starts: Sequence[Start | int],
        video_paths: Sequence[str | Path | None] | None = None,
    ) -> None:
        """Begin an episode in each of ``slots``.

        Args:
            slots: n different slots.
            starts: n of them; a number is the seed of a fresh start.
            video_paths: n paths of mp4 files to record to, None where nothing is recorded.
        """
        commands: dict[int, tuple] = {}
        for slot, given, path in zip(
            slots, starts, video_paths or [None] * len(slots), strict=True
        ):
            start = given if isinstance(given, Start) else Start.of_seed("test", given)
            absolute = None if path is None else str(Path(path).absolute())
            options = None if start.options is None else dict(start.options)
            episode = EpisodeStart(slot, start.seed, options, absolute)
            commands.setdefault(self._worker_of[slot], ("reset", []))[1].append(episode)
            self._starts[slot] = start
        self._command(commands)

    def require_pictures(self, start: Start) -> None:
        """Check, on an episode that is then dropped, that episodes can be recorded.

        Raises:
            UserError: the environment draws no pictures.
        """
        self._starts[0] = start
        options = None if start.options is None else dict(start.options)
        self._command({self._worker_of[0]: ("draw", EpisodeStart(0, start.seed, options))})
        self._starts[0] = None

    def observe(self, slots: Sequence[int]) -> dict[str, np.ndarray | list[str]]:
        """A copy of what each of the n ``slots`` observed at ``obs_offsets``.

        Returns:
            {key: (n, To, ...)}; times before the episode show its first observation. Text is a list
            of n str, of the latest of these times.
        """
        observed = {key: self._arrays[f"obs/{key}"][slots] for key in self.spaces.observations}
        return {
            key: values.tolist() if values.dtype.kind == "U" else values
            for key, values in observed.items()
        }

    def step(self, slots: Sequence[int], actions: np.ndarray) -> EpisodeTotals:
        """Execute up to Ta actions in each of ``slots``, fewer where the episode ends before.

        Args:
            slots: n different slots.
            actions: (n, Ta, Da), Ta at most ``n_action_steps``.
        """
        if any(self._starts[slot] is None for slot in slots):
            raise ValueError(f"a slot of {list(slots)} has no episode: reset it first")
        n_steps = actions.shape[1]
        self._arrays["action"][slots, :n_steps] = actions
        commands: dict[int, tuple] = {}
        for slot in slots:
            commands.setdefault(self._worker_of[slot], ("step", [], n_steps))[1].append(slot)
        self._command(commands)
        return EpisodeTotals(**{name: self._arrays[name][slots] for name in TOTALS})

    def _command(self, commands: Mapping[int, Any]) -> dict[int, Any]:
        """Send each worker its command, wait until all are done; returns their answers."""
        if self.closed:
            raise ValueError("the VectorEnv is closed")
        answers: dict[int, Any] = {}
        try:
            for index, command in commands.items():
                self._workers[index].connection.send(command)
            waiting = {self._workers[index].connection: index for index in commands}
            watch = _Watch(self._arrays["n_begun"], self._timeout_s)
            while waiting:
                ready = wait(list(waiting), watch.interval_s)
                for connection in cast("list[Connection]", ready):
                    index = waiting.pop(connection)
                    status, answers[index] = connection.recv()
                    if status != "done":
                        self._fail(index, status, answers[index])
                if not ready and (late := watch.late(waiting.values())) is not None:
                    self._fail(late, "late", "")
        except (EOFError, OSError):
            self._fail(index, "lost", self._workers[index].obituary())
        except BaseException:
            # Interrupted (Ctrl-C): answers are still on their way, nothing can follow them.
            self.close()
            raise
        return answers

    def _fail(self, index: int, status: str, reason: Any) -> NoReturn:
        slot = int(self._arrays["current_slot"][index])
        start = self._starts[slot]
        self.close()
        if status == "refused":
            raise UserError(reason if start is None else f"{start.label}: {reason}")
        where = f"the environment in slot {slot} ({start.label if start else 'no episode yet'})"
        if status == "late":
            raise WorkerError(
                f"{where} has not answered for {self._timeout_s:g} s, so it was ended; correct it, "
                "or raise task.env_runner.timeout_s"
            )
        if status == "lost":
            raise WorkerError(f"{where} is lost: its worker process {reason}") from None
        summary, traceback = reason
        error = WorkerError(f"{where} raised {summary}")
        error.add_note(traceback)
        raise error from None

    def close(self) -> None:
        """End the workers; may be called twice."""
        self._finalizer()

    def __enter__(self) -> VectorEnv:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Watch:
    """Finds workers that begin nothing new for too long.

    Args:
        n_begun: (n_workers,), counts what each has begun; shared with the workers.
        timeout_s: how long one thing may take.

    Attributes:
        interval_s: seconds between looks.
    """

    def __init__(self, n_begun: np.ndarray, timeout_s: float) -> None:
        self._n_begun, self._timeout_s = n_begun, timeout_s
        self._seen = n_begun.copy()
        self._since = np.full(len(n_begun), time.monotonic())
        self.interval_s = min(1.0, timeout_s / 4)

    def late(self, workers: Iterable[int]) -> int | None:
        """One of ``workers`` that took too long; None if none did."""
        now = time.monotonic()
        moved = self._n_begun != self._seen
        self._since[moved], self._seen = now, self._n_begun.copy()
        return next((i for i in workers if now - self._since[i] > self._timeout_s), None)


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
        """How the process died, for a sentence that begins with "its worker process"."""
        try:
            code = self.process.wait(_CLOSE_TIMEOUT)
        except subprocess.TimeoutExpired:
            return "has hung up"
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"exited with code {code}"


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


def _shut_down(workers: list[_WorkerHandle], memory_fd: int, owner_pid: int) -> None:
    """Tell every worker to end, wait for it, kill it if it does not."""
    if os.getpid() != owner_pid:
        return  # a forked copy of the parent is being torn down; the workers belong to the parent
    os.close(memory_fd)
    for worker in workers:
        # Hanging up would not do while a forked copy of the parent holds the connection, too.
        with contextlib.suppress(OSError):
            worker.connection.send(None)
        worker.connection.close()
    deadline = time.monotonic() + _CLOSE_TIMEOUT
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
    workers.clear()
