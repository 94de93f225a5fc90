"""A rollout worker process: steps its share of the environments of a :class:`VectorEnv`.

Started by the parent as a fresh interpreter, ``python -m diffusion_policy.gym_util.env_worker``,
which imports neither the parent's main module nor torch. It answers the first message, its setup,
and each command with None, or with the text of a traceback. It ends when the parent does.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from diffusion_policy.gym_util.env_slot import EnvSlot
from diffusion_policy.gym_util.make_env import make_env
from diffusion_policy.gym_util.shared_arrays import Fields, SharedArrays

TOTALS = {
    "sum_reward": "f8",
    "max_reward": "f8",
    "best_step": "i8",
    "success": "?",
    "length": "i8",
    "done": "?",
}
"""What is shared of the attributes of an :class:`EnvSlot`, with dtypes."""


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker builds and where it puts results; its fields are the first message.

    Attributes:
        index: of the worker.
        slots: the environments it owns.
        memory_fd, fields: the shared memory.
    """

    index: int
    slots: list[int]
    env_spec: dict[str, Any]
    max_steps: int | None
    obs_offsets: tuple[int, ...]
    video_fps: int
    memory_fd: int
    fields: Fields


class EpisodeStart(NamedTuple):
    """How one episode begins: see :meth:`EnvSlot.reset`."""

    slot: int
    seed: int | None
    options: dict[str, Any] | None = None
    video_path: str | None = None


class Worker:
    """The environments of one process, and their rows of the shared arrays.

    ``reset`` and ``step`` are the commands that the parent may send.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        self.setup = setup
        self.arrays = SharedArrays(setup.fields, setup.memory_fd)
        self.slots: dict[int, EnvSlot] = {}

    def build(self) -> None:
        """Construct the environments."""
        setup = self.setup
        for slot in setup.slots:
            self._note(slot)
            env = make_env(setup.env_spec, setup.max_steps)
            self.slots[slot] = EnvSlot(env, setup.obs_offsets, setup.video_fps)

    def reset(self, starts: list[EpisodeStart]) -> None:
        """Begin episodes."""
        for slot, seed, options, video_path in starts:
            self._note(slot)
            self.slots[slot].reset(seed, options, video_path)
            self._publish(slot)

    def step(self, slots: list[int], n_steps: int) -> None:
        """Execute the first ``n_steps`` shared actions of each of ``slots``."""
        for slot in slots:
            self._note(slot)
            self.slots[slot].step(self.arrays["action"][slot, :n_steps].copy())
            self._publish(slot)

    def close(self) -> None:
        """Close the environments; unfinished videos are dropped."""
        for env_slot in self.slots.values():
            env_slot.close()

    def _note(self, slot: int) -> None:
        # A process that is killed cannot say where it was; the shared memory can.
        self.arrays["current_slot"][self.setup.index] = slot

    def _publish(self, slot: int) -> None:
        env_slot = self.slots[slot]
        for time_index, observation in enumerate(env_slot.observations()):
            for key, value in observation.items():
                self.arrays[f"obs/{key}"][slot, time_index] = value
        for name in TOTALS:
            self.arrays[name][slot] = getattr(env_slot, name)


def serve(connection: Connection) -> None:
    """Build the environments, then obey commands until the parent hangs up or one of them fails."""
    worker = Worker(WorkerSetup(**connection.recv()))
    command, arguments = "build", []
    try:
        while True:
            try:
                getattr(worker, command)(*arguments)
            except Exception:
                connection.send(traceback.format_exc())
                return
            connection.send(None)
            command, *arguments = connection.recv()
    except (EOFError, OSError):
        pass  # the parent has hung up, or is gone
    finally:
        worker.close()


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
