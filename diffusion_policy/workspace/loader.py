"""The ``dataloader`` and ``val_dataloader`` sections: batches, and the processes that read them."""

from __future__ import annotations

import math
import mmap
import os
import re
import signal
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from diffusion_policy.dataset.base_dataset import BaseDataset
from diffusion_policy.dataset.batch_order import BatchOrder, as_is
from diffusion_policy.util import distributed
from diffusion_policy.util.config import require_known
from diffusion_policy.util.errors import UserError

_SHARED_MEMORY = Path("/dev/shm")
_REMEDY = "or use dataloader.num_workers=0 val_dataloader.num_workers=0"


@dataclass(frozen=True)
class LoaderConfig:
    """How batches are read; see :class:`torch.utils.data.DataLoader`.

    Attributes:
        batch_size: rows of a batch, over all processes of torchrun.
        num_workers: processes that read ahead; 0 reads in the training process.
        pin_memory: None is true where training is on a GPU.
        persistent_workers: keep the processes from epoch to epoch.
        prefetch_factor: batches that each process reads ahead; None is torch's choice.
        timeout: seconds to wait for a batch of a process; then it is taken to hang, and the run
            ends.
    """

    batch_size: int
    num_workers: int = 0
    pin_memory: bool | None = None
    persistent_workers: bool = False
    prefetch_factor: int | None = None
    timeout: float = 100.0

    @classmethod
    def parse(cls, name: str, section: Mapping[str, Any]) -> LoaderConfig:
        """Check the keys and numbers of the section of that name.

        Raises:
            UserError: names the key, its value and the remedy.
        """
        require_known(name, section, [f.name for f in fields(cls)])
        if "batch_size" not in section:
            raise UserError(f"{name}.batch_size is missing; use at least 1")
        for key, least in (("batch_size", 1), ("num_workers", 0), ("prefetch_factor", 1)):
            value = section.get(key, least)
            if key == "prefetch_factor" and value is None:
                continue
            if type(value) is not int or value < least:
                raise UserError(f"{name}.{key} is {value!r}; use a whole number, at least {least}")
        timeout = section.get("timeout", 1)
        if type(timeout) not in (int, float) or not 0 < timeout < math.inf:
            raise UserError(f"{name}.timeout is {timeout!r}; use seconds, more than 0")
        for key, usable in (("pin_memory", bool | None), ("persistent_workers", bool)):
            if not isinstance(section.get(key, False), usable):
                raise UserError(f"{name}.{key} is {section[key]!r}; use true or false")
        loader = cls(**section)
        for key in ("persistent_workers", "prefetch_factor"):
            if getattr(loader, key) and loader.num_workers == 0:
                raise UserError(
                    f"{name}.{key} is {getattr(loader, key)} without workers; leave it out, or set "
                    f"{name}.num_workers"
                )
        return loader

    def batches(
        self,
        dataset: BaseDataset,
        device: torch.device,
        seed: int,
        *,
        shuffle: bool,
        max_batches: int | None,
    ) -> tuple[BatchOrder, DataLoader]:
        """The order of the dataset's batches, and what reads them in this order.

        Args:
            device: that the batches go to.
            seed: of the order.
            shuffle: draw the samples of each epoch; False goes through all of them.
            max_batches: an epoch ends after so many; None for all.
        """
        if shuffle and 0 < len(dataset) < self.batch_size:
            warnings.warn(
                f"dataloader.batch_size is {self.batch_size}, but the training episodes have "
                f"{len(dataset)} samples: every batch holds all of them; use a smaller batch",
                stacklevel=2,
            )
        order = BatchOrder(
            len(dataset),
            self.batch_size,
            seed,
            shuffle,
            max_batches,
            distributed.rank(),
            distributed.n_processes(),
            dataset.draw_epoch if shuffle else lambda _: dataset.evaluation_order(),
        )
        # torch's types ask for its own classes, its loader for their methods alone.
        source: Any = dataset
        sampler: Any = order
        collate: Any = as_is
        loader = Loader(
            source,
            batch_sampler=sampler,
            collate_fn=collate,
            # Each pass draws a seed; from the global generator that would tell a resumed epoch
            # from an uninterrupted one.
            generator=torch.Generator().manual_seed(seed),
            num_workers=self.num_workers,
            pin_memory=device.type == "cuda" if self.pin_memory is None else self.pin_memory,
            persistent_workers=self.persistent_workers,
            prefetch_factor=self.prefetch_factor,
            timeout=self.timeout if self.num_workers else 0,
        )
        return order, loader


class Loader(DataLoader):
    """Tells what happened to its processes in one line, and ends them then."""

    _is_tried = False

    def _require_shared_memory(self) -> None:
        """Refuse to start processes that would wait for ever for room to put batches into."""
        if not _SHARED_MEMORY.is_dir():
            return
        source: Any = self.dataset
        order: Any = self.batch_sampler
        first = next(iter(order), None)
        if first is None:
            return
        needed = self.num_workers * (self.prefetch_factor or 1)
        needed *= _shared_bytes(source.__getitems__(first))
        status = os.statvfs(_SHARED_MEMORY)
        free = status.f_bavail * status.f_frsize
        if needed > free:
            raise UserError(
                f"{self.num_workers} processes of the data loader need {needed / 1e6:.1f} MB of "
                f"shared memory, but {_SHARED_MEMORY} has {free / 1e6:.1f} MB free; give it more "
                f"(docker run --shm-size=8g), {_REMEDY}"
            )

    def __iter__(self) -> Any:
        if self.num_workers and not self._is_tried:
            self._require_shared_memory()
            self._is_tried = True
        batches: Any = super().__iter__()
        try:
            yield from batches
        except RuntimeError as error:
            for process in getattr(batches, "_workers", ()):
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGCONT)  # or it would not hear torch end it
            if message := _process_failure(str(error)):
                raise UserError(message) from error
            raise
        except UserError as error:  # of a process: torch adds its traceback
            raise UserError(str(error).strip().rpartition("UserError: ")[2]) from error


def _shared_bytes(batch: Any) -> int:
    """Shared memory that a batch takes: each tensor has pages of its own."""
    if isinstance(batch, Mapping):
        return sum(map(_shared_bytes, batch.values()))
    return -(-batch.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE if torch.is_tensor(batch) else 0


def _process_failure(text: str) -> str | None:
    """What to do about an error of torch's loader; None if its processes are not to blame."""
    if re.search(r"shared memory|shm|Bus error|No space left", text):
        return (
            "the processes of the data loader need more shared memory than /dev/shm has; give it "
            f"more (docker run --shm-size=8g), {_REMEDY}"
        )
    if match := re.search(r"timed out after ([\d.]+) seconds", text):
        return (
            f"a process of the data loader has given no batch for {float(match[1]):g} s; look at "
            f"the data set's disk, raise dataloader.timeout, {_REMEDY}"
        )
    if re.search(r"DataLoader worker .*(exited|killed)", text):
        return (
            f"a process of the data loader has died ({' '.join(text.split())}), often for lack of "
            f"memory or of shared memory (docker run --shm-size=8g gives more); {_REMEDY[3:]}"
        )
    return None
