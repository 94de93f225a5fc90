import gc
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from diffusion_policy.util.errors import UserError
from diffusion_policy.workspace.loader import LoaderConfig


class Data:
    """Batches of numbers; a process that reads sample 4 does ``failure``."""

    def __init__(self, failure):
        self.failure = failure

    def __len__(self):
        return 8

    def evaluation_order(self):
        return np.arange(8)

    def __getitems__(self, wanted):
        rows = wanted.samples.tolist()
        if 4 in rows and multiprocessing.parent_process():
            self.failure()
        return torch.tensor(rows)


def refuse():
    raise UserError("array 'state' of d.zarr lacks chunk 3")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (lambda: time.sleep(1000), r"given no batch for 1 s.*dataloader\.timeout"),
        (lambda: os.kill(os.getpid(), signal.SIGSTOP), r"given no batch for 1 s"),
        (lambda: os._exit(3), r"process of the data loader has died"),
        (
            lambda: os.kill(os.getpid(), signal.SIGBUS),
            r"(died|need).* shared memory .*num_workers=0",
        ),
        (refuse, r"array 'state' of d\.zarr lacks chunk 3"),
    ],
)
def test_a_failing_process_is_told_in_one_line_and_leaves_no_other(failure, message):
    config = LoaderConfig(batch_size=2, num_workers=2, timeout=1)
    _, loader = config.batches(
        Data(failure), torch.device("cpu"), 0, shuffle=False, max_batches=None
    )
    with pytest.raises(UserError, match=rf"^[^\n]*{message}[^\n]*$"):
        list(loader)
    del loader
    gc.collect()
    assert not multiprocessing.active_children()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="shared memory is elsewhere")
def test_too_little_shared_memory_is_told_before_processes_start():
    class Large(Data):
        def __getitems__(self, wanted):
            # Takes no memory until something is written into it.
            return {"action": torch.empty(1 << 50, dtype=torch.uint8, device="meta")}

    config = LoaderConfig(batch_size=2, num_workers=2)
    _, loader = config.batches(Large(None), torch.device("cpu"), 0, shuffle=False, max_batches=None)
    with pytest.raises(UserError, match=r"need [\d.]+ MB of shared memory, but /dev/shm has"):
        next(iter(loader))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("timeout", [0, -1, "long", float("nan"), True, None])
def test_a_timeout_that_makes_no_sense_is_refused(timeout):
    with pytest.raises(UserError, match=r"val_dataloader\.timeout is .*use seconds"):
        LoaderConfig.parse("val_dataloader", {"batch_size": 1, "timeout": timeout})


def test_no_samples_are_no_batches():
    class Nothing(Data):
        def __len__(self):
            return 0

    config = LoaderConfig(batch_size=2, num_workers=1)
    _, loader = config.batches(
        Nothing(None), torch.device("cpu"), 0, shuffle=False, max_batches=None
    )
    assert list(loader) == []
