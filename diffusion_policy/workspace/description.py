"""What a person sees of a run: what will happen, before it does, and how far it is."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from diffusion_policy.util import distributed
from diffusion_policy.util.pytorch_util import count_parameters

if TYPE_CHECKING:
    from diffusion_policy.workspace.train_workspace import TrainWorkspace

_BYTES_PER_WEIGHT = 4  # float32
_PACE_STEPS = 50  # after so many steps the pace is known


def description(run: TrainWorkspace) -> str:
    """Device, data, inputs, policy, schedule and output directory, a line each."""
    trainable, total = count_parameters(run.model)
    n_processes = distributed.n_processes()
    processes = f"{n_processes} processes, each " if n_processes > 1 else ""
    policy = run.cfg.policy._target_.rpartition(".")[2]
    shapes = ", ".join(f"{key} {list(f.shape)}" for key, f in run.model.shape_meta.obs.items())
    return (
        f"device    {processes}{run.device}, {torch.get_num_threads()} CPU threads, "
        f"{run.precision}\n"
        f"data      {run.dataset.source}: {run.dataset.n_episodes} training episodes "
        f"({len(run.dataset):,} samples), {run.val_dataset.n_episodes} for validation\n"
        f"inputs    {shapes} at steps {list(run.model.obs_offsets)}\n"
        f"policy    {policy}, {trainable:,} of {total:,} parameters train\n"
        f"schedule  {_schedule(run)}, {run.global_step:,} done\n"
        f"{_debug(run)}"
        f"disk      {_disk(run)}\n"
        f"output    {run.output_dir}"
    )


def _disk(run: TrainWorkspace) -> str:
    """What the checkpoints will take, about: weights, their average, and two moments of Adam."""
    trainable, total = count_parameters(run.model)
    copies = 2 + run.training.use_ema
    n_bytes = _BYTES_PER_WEIGHT * (total + copies * trainable)
    n_files = run.topk.k + 2  # the latest, and its successor while it is written
    free = shutil.disk_usage(run.output_dir).free
    text = f"{n_files} checkpoints of {_size(n_bytes)} at most, of {_size(free)} that are free"
    return f"{text}; free some" if n_files * n_bytes > free else text


def _size(n_bytes: float) -> str:
    """In MB, or from 1 GB in GB."""
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"


def _debug(run: TrainWorkspace) -> str:
    if not run.training.debug:
        return ""
    names = ", ".join(run.training.debug_settings)
    return f"debug     training.debug sets {names}, and more to try all parts soon\n"


def _schedule(run: TrainWorkspace) -> str:
    samples = run.cfg.dataloader.batch_size * run.training.gradient_accumulate_every
    if run.training.max_steps is not None:
        return (
            f"{run.total_steps:,} steps of {samples} samples, {run.steps_per_epoch:,} steps an "
            "epoch"
        )
    return (
        f"{run.training.num_epochs} epochs x {run.steps_per_epoch} steps of {samples} samples = "
        f"{run.total_steps:,} steps"
    )


class ProgressBar(tqdm):
    """Steps done and the time left, which is also told once the pace is known.

    The bar is for people at a terminal; a log file gets the time alone.

    Args:
        total, initial: steps in all, and done before.
        interval_sec: between refreshes.
    """

    def __init__(self, total: int, initial: int, interval_sec: float) -> None:
        self._left, self._steps, self._started = total - initial, 0, time.monotonic()
        super().__init__(
            disable=None if distributed.is_main() else True,  # None: off a terminal
            total=total,
            initial=initial,
            desc="Training",
            unit="step",
            mininterval=interval_sec,
            smoothing=0.05,
            file=sys.stderr,
        )

    def step(self, epoch: int, loss: float | None) -> None:
        """One step is done; ``loss`` is None where it is not known yet."""
        if loss is not None:
            self.set_postfix(epoch=epoch, loss=f"{loss:.4f}", refresh=False)
        self.update()
        self._steps += 1
        if distributed.is_main() and self._steps == _PACE_STEPS:
            pace = (time.monotonic() - self._started) / _PACE_STEPS
            minutes = (self._left - _PACE_STEPS) * pace / 60
            self.write(
                f"expected  about {minutes:.0f} minutes of training, plus evaluation", sys.stdout
            )
