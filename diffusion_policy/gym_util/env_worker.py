"""A rollout worker process: steps its share of the environments of a :class:`VectorEnv`.

Started by the parent as a fresh interpreter, ``python -m diffusion_policy.gym_util.env_worker``,
which imports neither the parent's main module nor torch. It ends when the parent does.

The parent sends a message, and the worker answers each with ``(status, value)``:

========================================  =========================================================
message                                   value of ``done``
========================================  =========================================================
fields of :class:`WorkerSetup`, first     :class:`EnvSpaces` of its environments
``("share", fields, obs_offsets)``        None; the shared arrays are mapped
``("draw", EpisodeStart)``                None; the environment was reset and has drawn a picture
``("reset", [EpisodeStart, ...])``        None; first observations are in the shared arrays
``("step", slots, n_steps)``              None; observations and totals are in the shared arrays
None                                      no answer; the worker ends
========================================  =========================================================

The status ``refused`` comes with the text of a :class:`UserError`, ``failed`` with what was raised,
in one line, and its traceback; after both the worker ends.
"""

from __future__ import annotations

import os
import sys
import textwrap
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from diffusion_policy.gym_util.env_slot import EnvSlot
from diffusion_policy.gym_util.make_env import make_env
from diffusion_policy.gym_util.shared_arrays import Fields, SharedArrays
from diffusion_policy.gym_util.spaces import EnvSpaces, describe_spaces
from diffusion_policy.util.errors import UserError

TOTALS = {
    "sum_reward": "f8",
    "max_reward": "f8",
    "best_step": "i8",
    "success": "?",
    "tells_success": "?",
    "length": "i8",
    "done": "?",
}
"""The attributes of an :class:`EnvSlot` that are shared, with dtypes."""

_MAX_SUMMARY = 300  # characters of an error's own text


def status_fields(n_workers: int) -> Fields:
    """What each worker is busy with: the first of the shared arrays, from the start on.

    ``current_slot`` is a slot, and ``n_begun`` counts what was begun: constructions, resets and
    steps. A process that is killed or hangs cannot say where it was; the shared memory can.
    """
    return {name: ((n_workers,), "i8") for name in ("current_slot", "n_begun")}


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker builds; its fields are the first message.

    Attributes:
        index: number of the worker, below ``n_workers``.
        slots: the environments it owns.
        memory_fd: the block of shared memory, which has no size yet but for the status.
    """

    index: int
    n_workers: int
    slots: list[int]
    env_spec: dict[str, Any]
    max_steps: int | None
    video_fps: int
    memory_fd: int


class EpisodeStart(NamedTuple):
    """How one episode begins: see :meth:`EnvSlot.reset`."""

    slot: int
    seed: int | None
    options: dict[str, Any] | None = None
    video_path: str | None = None


class Worker:
    """The environments of one process, and their rows of the shared arrays."""

    def __init__(self, setup: WorkerSetup) -> None:
        self.setup = setup
        self.arrays = SharedArrays(status_fields(setup.n_workers), setup.memory_fd)
        self.slots: dict[int, EnvSlot] = {}

    def build(self) -> EnvSpaces:
        """Construct the environments, and tell their spaces."""
        setup = self.setup
        for slot in setup.slots:
            self._note(slot)
            env = make_env(setup.env_spec, setup.max_steps)
            self.slots[slot] = EnvSlot(env, (0,), setup.video_fps)
        return describe_spaces(env)

    def share(self, fields: Fields, obs_offsets: tuple[int, ...]) -> None:
        """Map the shared arrays, and hand out observations at these times from now on."""
        self.arrays = SharedArrays(fields, self.setup.memory_fd)
        for env_slot in self.slots.values():
            env_slot.configure(obs_offsets)

    def draw(self, start: EpisodeStart) -> None:
        """Try whether an episode that begins so can be recorded."""
        self._note(start.slot)
        env_slot = self.slots[start.slot]
        env_slot.reset(start.seed, start.options)
        env_slot.frame()

    def reset(self, starts: list[EpisodeStart]) -> None:
        """Begin episodes."""
        for slot, seed, options, video_path in starts:
            self._note(slot)
            self.slots[slot].reset(seed, options, video_path)
            self._publish(slot)

    def step(self, slots: list[int], n_steps: int) -> None:
        """Execute the first ``n_steps`` shared actions of each of ``slots``."""
        for slot in slots:
            for action in self.arrays["action"][slot, :n_steps].copy():
                self._note(slot)
                self.slots[slot].step(action[None])
            self._publish(slot)

    def close(self) -> None:
        """Close the environments; unfinished videos are dropped."""
        for env_slot in self.slots.values():
            env_slot.close()

    def _note(self, slot: int) -> None:
        self.arrays["current_slot"][self.setup.index] = slot
        self.arrays["n_begun"][self.setup.index] += 1

    def _publish(self, slot: int) -> None:
        env_slot = self.slots[slot]
        observations = env_slot.observations()
        for key, latest in observations[-1].items():
            shared = self.arrays[f"obs/{key}"]
            if isinstance(latest, str):
                shared[slot] = _fitting(key, latest, shared.dtype)
            else:
                for time_index, observation in enumerate(observations):
                    shared[slot, time_index] = observation[key]
        for name in TOTALS:
            self.arrays[name][slot] = getattr(env_slot, name)


def _fitting(key: str, text: str, dtype: np.dtype) -> str:
    """``text``, which numpy would cut off silently where it is too long."""
    max_length = dtype.itemsize // np.dtype("U1").itemsize
    if len(text) > max_length:
        raise ValueError(f"observation {key!r} is longer than its space's {max_length}: {text!r}")
    return text


def serve(connection: Connection) -> None:
    """Build the environments, then obey commands until the parent ends it or one of them fails."""
    worker = Worker(WorkerSetup(**connection.recv()))
    message: tuple | None = ("build",)
    try:
        while message is not None:
            command, *arguments = message
            try:
                value = getattr(worker, command)(*arguments)
            except UserError as error:
                connection.send(("refused", str(error)))
                return
            except Exception as error:
                connection.send(("failed", (_summary(error), traceback.format_exc())))
                return
            connection.send(("done", value))
            message = connection.recv()
    except (EOFError, OSError):
        pass  # the parent has hung up, or is gone
    finally:
        worker.close()


def _summary(error: Exception) -> str:
    """What was raised and where, in one line."""
    text = textwrap.shorten(str(error), _MAX_SUMMARY, placeholder=" ...")
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({where.filename}, line {where.lineno})"


def end_with_parent(parent_pid: int) -> None:
    """End this process soon after its parent, even in the middle of an endless step.

    The closed connection says the same, but only between commands, and not while some other
    child of the parent still holds a copy of the parent's end.
    """
    while os.getppid() == parent_pid:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    fd, parent_pid = map(int, sys.argv[1:])
    threading.Thread(target=end_with_parent, args=[parent_pid], daemon=True).start()
    serve(Connection(fd))
