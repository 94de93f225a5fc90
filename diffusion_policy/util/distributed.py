"""Several processes as one run: who this one is, and what they tell each other.

``torchrun`` starts them; a plain ``python train.py`` is the case of one process, in which
everything here answers at once. Functions that return something from other processes wait for all
of them, so all have to call them in the same order.
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
# Processes wait for the one that builds a cache or plays the longest episodes. A dead one is
# noticed by torchrun, not by waiting.
_PATIENCE = timedelta(hours=2)


def is_launched() -> bool:
    """Whether torchrun (or something that sets the same variables) started this process."""
    return {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys()


def join(device_name: str) -> torch.device:
    """Meet the other processes, if there are any; returns the device of this one.

    GPUs talk by nccl, one process a GPU; CPUs by gloo.

    Args:
        device_name: auto, cpu, cuda, ... as in ``training.device``.

    Raises:
        UserError: the device does not exist, or is one and the same for several processes.
    """
    import torch

    from diffusion_policy.util.pytorch_util import resolve_device

    device = resolve_device(device_name)
    if not is_launched():
        return device
    if device.type not in ("cpu", "cuda") or device.index is not None:
        raise UserError(
            f"training.device is {device_name!r} under torchrun, where each process has a device "
            "of its own; use auto, cuda or cpu"
        )
    local_rank, n_gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if device.type == "cuda" and local_rank >= n_gpus:
        raise UserError(
            f"torchrun started process {local_rank + 1} of this machine, which has {n_gpus} GPUs; "
            f"use --nproc_per_node={n_gpus}, or training.device=cpu"
        )
    if _connection() is None:
        from accelerate import PartialState

        PartialState(cpu=device.type == "cpu", timeout=_PATIENCE)
    return torch.device("cuda", local_rank) if device.type == "cuda" else device


def leave() -> None:
    """Part from the other processes, at the end of a run that went well.

    After an error a process must not wait for the others: it ends, and torchrun ends them.
    """
    if dist := _connection():
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ["RANK"]) if is_launched() else 0


def n_processes() -> int:
    """Processes of the run, on all machines."""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def n_local_processes() -> int:
    """Processes of the run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if is_launched() else 1


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


@contextmanager
def main_first() -> Iterator[None]:
    """The main process runs the block before the others do: it fills caches that they read."""
    if not is_main():
        wait()
    yield
    if is_main():
        wait()


def wait() -> None:
    """Until every process has come here."""
    if dist := _connection():
        dist.barrier()


def total(values: Sequence[float]) -> list[float]:
    """Sums over processes of each of ``values``."""
    dist = _connection()
    if dist is None:
        return list(values)
    import torch

    on_gpu = dist.get_backend() == "nccl"
    sums = torch.tensor(values, dtype=torch.float64, device="cuda" if on_gpu else "cpu")
    dist.all_reduce(sums)
    return sums.tolist()


def gather(items: Sequence[T]) -> list[T]:
    """The items of every process, in the order of the processes; they travel pickled."""
    dist = _connection()
    if dist is None:
        return list(items)
    parts: list[Any] = [None] * n_processes()
    dist.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]


def from_main(value: T) -> T:
    """What the main process gave as ``value``."""
    dist = _connection()
    if dist is None:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def _connection() -> ModuleType | None:
    """torch.distributed, where the processes have met.

    Imported only then: parts that need no torch ask this module, too.
    """
    if not is_launched():
        return None
    import torch.distributed as dist

    return dist if dist.is_initialized() else None
