"""Run several processes as one: ranks, devices and the exchange of values.

``torchrun`` starts the processes. A plain ``python train.py`` is one process, and every function
here returns at once. Functions that exchange values wait for all processes, so all processes must
call them in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from diffusion_policy.util.errors import UserError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
# Long enough for one process to build a cache or play the longest episodes while the others wait.
# torchrun notices a dead process, so this limit need not.
_PATIENCE = timedelta(hours=2)


def is_launched() -> bool:
    """Return whether torchrun, or a launcher with the same variables, started this process."""
    return {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys()


def join(device_name: str) -> torch.device:
    """Connect to the other processes, if any, and return the device of this process.

    On GPUs each process has its own GPU and the backend is nccl; on CPUs the backend is gloo.

    Args:
        device_name: auto, cpu, cuda, ... as in ``training.device``.

    Raises:
        UserError: the device does not exist, or several processes would share it.
    """
    import torch

    from diffusion_policy.util.pytorch_util import resolve_device

    device = resolve_device(device_name)
    if not is_launched():
        return device
    if device.type not in ("cpu", "cuda") or device.index is not None:
        raise UserError(
            f"training.device is {device_name!r}, but under torchrun each process has its own "
            "device; use auto, cuda or cpu"
        )
    local_rank, n_gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if device.type == "cuda" and local_rank >= n_gpus:
        raise UserError(
            f"torchrun started {local_rank + 1} or more processes on a machine with {n_gpus} GPUs; "
            f"use --nproc_per_node={n_gpus}, or training.device=cpu"
        )
    if _connection() is None:
        from accelerate import PartialState

        PartialState(cpu=device.type == "cpu", timeout=_PATIENCE)
    return torch.device("cuda", local_rank) if device.type == "cuda" else device


def leave() -> None:
    """Disconnect from the other processes at the end of a successful run.

    Do not call this after an error: the failed process exits, and torchrun stops the others.
    """
    if dist := _connection():
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ["RANK"]) if is_launched() else 0


def n_processes() -> int:
    """Return the number of processes of the run on all machines."""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def n_local_processes() -> int:
    """Return the number of processes of the run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if is_launched() else 1


def is_main() -> bool:
    """Return whether this is the process that writes and prints."""
    return rank() == 0


@contextmanager
def main_first() -> Iterator[None]:
    """Run the block in the main process first, so that the others find its caches filled."""
    if not is_main():
        wait()
    yield
    if is_main():
        wait()


def wait() -> None:
    """Wait until every process has called this."""
    if dist := _connection():
        dist.barrier()


def total(values: Sequence[float]) -> list[float]:
    """Return the sum over processes of each of ``values``."""
    dist = _connection()
    if dist is None:
        return list(values)
    import torch

    on_gpu = dist.get_backend() == "nccl"
    sums = torch.tensor(values, dtype=torch.float64, device="cuda" if on_gpu else "cpu")
    dist.all_reduce(sums)
    return sums.tolist()


def gather(items: Sequence[T]) -> list[T]:
    """Return the items of all processes, in the order of the ranks; they are sent pickled."""
    dist = _connection()
    if dist is None:
        return list(items)
    parts: list[Any] = [None] * n_processes()
    dist.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]


def from_main(value: T) -> T:
    """Return the main process's ``value`` in every process."""
    dist = _connection()
    if dist is None:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def _connection() -> ModuleType | None:
    """Return torch.distributed once the processes are connected, else None.

    The import is late because code without torch uses this module, too.
    """
    if not is_launched():
        return None
    import torch.distributed as dist

    return dist if dist.is_initialized() else None
