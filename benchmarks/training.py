"""Training steps on the CPU: loss, gradients and update of one batch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from benchmarks.case import Options, Work, case, each
from benchmarks.policies import DOT, TRANSFORMER, UNET, Learner, learner
from diffusion_policy.dataset.batch_order import BatchOrder, as_is
from diffusion_policy.model.common.batch_random import batch_randomness
from diffusion_policy.policy.base_policy import Batch
from diffusion_policy.util.pytorch_util import AUTOCAST_DTYPES, resolve_precision

_CPU = torch.device("cpu")
_N_CHECKED = 4  # rows that the check also computes one by one


def _methods(precision: str, suffix: str) -> tuple[dict, ...]:
    """Return the cases of the three networks; the reference is their step in float32."""
    dtype = "float32" if precision == "fp32" else "bfloat16 where the CPU has it"
    return (
        {
            "name": f"training.dot{suffix}",
            "what": f"DOT (2.1 M), training step, batch 24, {dtype}",
            "unit": "ms",
            "reference": 107,
            "arguments": {"config_name": DOT, "batch_size": 24, "precision": precision},
        },
        {
            "name": f"training.unet{suffix}",
            "what": f"diffusion U-Net low-dim (65.8 M), training step, batch 256, {dtype}",
            "unit": "s",
            "reference": 3.0,
            "arguments": {"config_name": UNET, "batch_size": 256, "precision": precision},
        },
        {
            "name": f"training.transformer{suffix}",
            "what": f"diffusion transformer low-dim (9.0 M), training step, batch 256, {dtype}",
            "unit": "s",
            "reference": 1.7,
            "arguments": {"config_name": TRANSFORMER, "batch_size": 256, "precision": precision},
        },
    )


def step(options: Options, config_name: str, batch_size: int, precision: str) -> Iterator[Work]:
    """Time a training step with the published settings, including dropout."""
    overrides = ["policy.dropout=0.1"] if config_name == DOT else []
    trained = learner(options, config_name, *overrides)
    batch = trained.batch(options.size(batch_size, _N_CHECKED))
    train = _Step(trained, precision)

    def check(loss: float) -> None:
        assert math.isfinite(loss)
        few = trained.batch(_N_CHECKED)
        whole = train.loss(few, 0, _N_CHECKED).item()
        rows = [train.slow_loss(few, row) for row in range(_N_CHECKED)]
        tolerance = 1e-4 if train.dtype is None else 0.05
        assert abs(whole - sum(rows) / len(rows)) <= tolerance * abs(whole), (whole, rows)

    yield Work(lambda: train(batch), check)


for _facts in (*_methods("fp32", ""), *_methods("auto", "_auto")):
    case(**_facts, target=1.5)(step)


class _Step:
    """Compute as :meth:`TrainWorkspace.train_step` does, without averaged weights."""

    def __init__(self, trained: Learner, precision: str) -> None:
        self.policy = trained.policy
        self.optimizer = trained.policy.get_optimizer(trained.config.optimizer)
        self.dtype = AUTOCAST_DTYPES[resolve_precision(precision, _CPU)]

    def __call__(self, batch: Batch) -> float:
        self.policy.train()
        with torch.autocast("cpu", self.dtype, enabled=self.dtype is not None):
            loss = self.policy.compute_loss(batch)[0]
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.policy.after_update()
        return loss.item()

    @torch.no_grad()
    def loss(self, batch: Batch, first: int, stop: int) -> torch.Tensor:
        """Return the loss without dropout of some rows of a batch of :data:`_N_CHECKED` rows."""
        self.policy.eval()
        with (
            torch.autocast("cpu", self.dtype, enabled=self.dtype is not None),
            batch_randomness(first, stop, _N_CHECKED, seed=0),
        ):
            return self.policy.compute_loss(batch)[0]

    @torch.no_grad()
    def slow_loss(self, batch: Batch, row: int) -> float:
        """Return the float32 loss of one row alone."""
        self.policy.eval()
        with batch_randomness(row, row + 1, _N_CHECKED, seed=0):
            return self.policy.compute_loss(_row(batch, row))[0].item()


def _row(batch: Batch, row: int) -> Batch:
    return {
        key: _row(value, row) if isinstance(value, dict) else value[row : row + 1]
        for key, value in batch.items()
    }


@each(
    case(
        "training.waiting_dot",
        "DOT, batch 64: share of a training step that waits for data",
        "%",
        target=5,
        max_repeats=3,
        arguments={"config_name": DOT},
    ),
    case(
        "training.waiting_transformer",
        "diffusion transformer, batch 256: share of a training step that waits for data",
        "%",
        target=5,
        max_repeats=3,
        arguments={"config_name": TRANSFORMER},
    ),
)
def waiting(options: Options, config_name: str) -> Iterator[Work]:
    """Measure with the loader that training uses, in the training process."""
    trained = learner(options, config_name)
    train = _Step(trained, "auto")
    batch_size = trained.config.dataloader.batch_size
    n_steps = options.size(10, 1)

    def run() -> float:
        order = BatchOrder(len(trained.dataset), batch_size, seed=0, max_batches=n_steps)
        batches = iter(DataLoader(trained.dataset, batch_sampler=order, collate_fn=as_is))
        waited, began = 0.0, time.perf_counter()
        for _ in range(n_steps):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            train(batch)
        return 100 * waited / (time.perf_counter() - began)

    def check(share: float) -> None:
        assert 0 < share < 100

    yield Work(run, check)
