"""One optimiser step: precision, accumulation, processes, and numbers that are not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler

from diffusion_policy.dataset.batch_order import BatchPart
from diffusion_policy.model.common.batch_random import batch_randomness
from diffusion_policy.model.diffusion.ema_model import EMAModel
from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.spec.batch import Batch
from diffusion_policy.util import distributed
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.pytorch_util import AUTOCAST_DTYPES, dict_apply
from diffusion_policy.util.seeding import seed_step
from diffusion_policy.workspace.lr_schedule import PlateauSchedule
from diffusion_policy.workspace.sharding import whole

LOSS, GRAD_NORM = "train_loss", "grad_norm"
"""Names of the loss and of the norm of the gradient among the values of a step."""
_OWN_NAMES = (LOSS, GRAD_NORM, "loss", "train_action_mse_error", "global_step", "epoch", "lr")


class Position(NamedTuple):
    """Where a step lies: the steps before it, and its epoch with the steps before it there."""

    global_step: int
    epoch: int
    epoch_step: int

    def __str__(self) -> str:
        return f"step {self.global_step} (step {self.epoch_step} of epoch {self.epoch})"


class _Unseen(NamedTuple):
    """A step whose values are still on the device.

    Attributes:
        position: of the step.
        shares: of this process in the loss of each batch.
        values: of each batch, by name.
        norm: of the gradient; None where a scaler deals with it.
    """

    position: Position
    shares: list[float]
    values: list[dict[str, Tensor]]
    norm: Tensor | None


class Learner:
    """Takes optimiser steps, and reads their values from the device when it is told to.

    A step whose loss or gradient is not finite stops training at the next look. If that look is
    part of the step, nothing was updated. If not, fused optimisers leave the step out, on the
    device; after others the weights are lost, so callers look before they save.

    Args:
        model: trains; in a wrapper that shares gradients if there are several processes.
        policy: the same, without a wrapper.
        ema: averages the weights; None for no average.
        scaler: scales the loss in fp16; disabled for other precisions.
        precision: of matrix products: fp32, bf16 or fp16.
        max_grad_norm: gradients are scaled down to this norm; None leaves them.
        device: of the policy.
    """

    def __init__(
        self,
        model: nn.Module,
        policy: BasePolicy,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: LRScheduler | PlateauSchedule,
        scaler: torch.amp.GradScaler,
        ema: EMAModel | None,
        *,
        precision: str,
        max_grad_norm: float | None,
        device: torch.device,
    ) -> None:
        self.model = model
        self.policy = policy
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.scaler = scaler
        self.ema = ema
        self.dtype = AUTOCAST_DTYPES[precision]
        self.max_grad_norm = math.inf if max_grad_norm is None else max_grad_norm
        self.device = device
        self._unseen: list[_Unseen] = []

    def step(
        self, batches: Sequence[tuple[BatchPart, Batch]], position: Position, *, look: bool
    ) -> list[dict[str, float]]:
        """One optimiser step on the mean loss of ``batches``.

        Args:
            batches: this process's part of each, and its rows.
            look: also do what :meth:`look` does, before the update.

        Returns:
            What :meth:`look` returns; empty without a look.

        Raises:
            UserError: see :meth:`look`.
        """
        self.policy.train()
        unseen = self._backward(batches, position)
        self._unseen.append(unseen)
        seen = self.look() if look else []
        self._update(None if look else _is_bad(unseen))
        return seen

    def look(self) -> list[dict[str, float]]:
        """Wait for the device, and check the steps since the last look.

        Returns:
            For each of them the loss (:data:`LOSS`) and what the policy's compute_loss returned
            beside it: means over batches and processes; and the norm of the gradient before it is
            scaled down (:data:`GRAD_NORM`), but in fp16.

        Raises:
            UserError: the loss or the gradient of a step is not finite; the message names the
                first such step.
        """
        unseen, self._unseen = self._unseen, []
        if not unseen:
            return []
        norms = _numbers([step.norm for step in unseen if step.norm is not None])
        steps = _means(unseen)
        for i, (step, values) in enumerate(zip(unseen, steps, strict=True)):
            is_last = i == len(unseen) - 1
            _require_finite("loss", values[LOSS], step.position, is_last)
            if norms:
                _require_finite("norm of the gradient", norms[i], step.position, is_last)
        # A scaler leaves out steps whose gradient is not finite, and scales down.
        if self.scaler.is_enabled() and self.scaler.get_scale() < 1:
            raise UserError(
                f"the gradient is not finite in fp16 however the loss is scaled, at step "
                f"{unseen[-1].position.global_step}; use training.precision=bf16 or fp32"
            )
        for values, norm in zip(steps, norms, strict=False):  # a scaler leaves no norms
            values[GRAD_NORM] = norm
        return steps

    def _backward(self, batches: Sequence[tuple[BatchPart, Batch]], position: Position) -> _Unseen:
        """Gradients of the mean loss, clipped."""
        shares, values = [], []
        for number, (part, batch) in enumerate(batches, start=1):
            seed_step(part.own_seed, self.device)
            with self._gradients_are_shared(number == len(batches)):
                loss, others = self._loss(part, batch)
                # Processes' gradients are averaged, so shares are counted in processes.
                scale = part.share * distributed.n_processes() / len(batches)
                self.scaler.scale(loss * scale).backward()
            shares.append(part.share)
            values.append({LOSS: loss.detach(), **named_values(others, self.device)})
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        return _Unseen(position, shares, values, None if self.scaler.is_enabled() else whole(norm))

    def _loss(self, part: BatchPart, batch: Batch) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        with (
            batch_randomness(part.start, part.stop, part.total, part.seed),
            torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None),
        ):
            return _checked(self.policy, self.model(to_device(batch, self.device)))

    def _gradients_are_shared(self, last: bool) -> AbstractContextManager[None]:
        """In the block, processes exchange gradients, unless more are to be added first."""
        if isinstance(self.model, DistributedDataParallel):
            return nullcontext() if last else self.model.no_sync()
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_gradient_sync(last)
        return nullcontext()

    def _update(self, is_bad: Tensor | None) -> None:
        """Update weights, schedule and average, unless ``is_bad`` says 1 on the device."""
        optimizer: Any = self.optimizer
        skips = is_bad is not None and getattr(optimizer, "_step_supports_amp_scaling", False)
        if skips:
            optimizer.found_inf = is_bad  # where fused optimisers look, as for a GradScaler
        self.scaler.step(optimizer)
        if skips:
            del optimizer.found_inf
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.lr_scheduler.step()
        self.policy.after_update()
        if self.ema is not None:
            self.ema.step(self.policy)


def _checked(policy: BasePolicy, answer: Any) -> tuple[Tensor, Mapping[str, float | Tensor]]:
    """What the policy's compute_loss returned.

    Raises:
        UserError: it is not a loss that trains, and values by name.
    """
    name = f"compute_loss of {type(policy).__name__}"
    loss, values = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, None)
    if not isinstance(loss, Tensor) or not isinstance(values, Mapping):
        kind = type(answer).__name__
        raise UserError(f"{name} returns a {kind}; return the loss and a dict of values to log")
    if loss.ndim:
        raise UserError(f"{name} returns a loss of shape {list(loss.shape)}; return its mean")
    if not loss.requires_grad:
        raise UserError(f"{name} returns a loss that trains no parameter; compute it from some")
    return loss, values


def to_device(batch: Batch, device: torch.device) -> Batch:
    return dict_apply(batch, lambda x: x.to(device, non_blocking=True))


def named_values(values: Mapping[str, float | Tensor], device: torch.device) -> dict[str, Tensor]:
    """What compute_loss returned beside the loss, as float32 scalars on the device.

    Raises:
        UserError: a name is one of those that the log has already, or a value is no scalar.
    """
    for name, value in values.items():
        if name in _OWN_NAMES or name.startswith("val_") or "/" in name:
            raise UserError(
                f"compute_loss returns {name!r}; use a name that is none of "
                f"{', '.join(_OWN_NAMES)}, begins without val_ and has no slash, since the log has "
                "such names already"
            )
        shape = list(getattr(value, "shape", ()))
        if shape:
            raise UserError(f"compute_loss returns {name!r} of shape {shape}; return its mean")
    return {
        name: torch.as_tensor(value, dtype=torch.float32).detach().to(device)
        for name, value in values.items()
    }


def _is_bad(step: _Unseen) -> Tensor | None:
    """1.0 if a number of the step is not finite, else 0.0; None where a scaler deals with it."""
    if step.norm is None:
        return None
    losses = [values[LOSS] for values in step.values]
    return (~torch.stack([*losses, step.norm.to(losses[0])]).isfinite().all()).float()


def _means(steps: Iterable[_Unseen]) -> list[dict[str, float]]:
    """The values of each step: sums over processes, means over its batches."""
    steps = list(steps)
    batches = [pair for step in steps for pair in zip(step.shares, step.values, strict=True)]
    numbers = iter(_numbers([value for _, values in batches for value in values.values()]))
    weighted = [share * next(numbers) for share, values in batches for _ in values]
    totals = iter(distributed.total(weighted))
    means = []
    for step in steps:
        found: dict[str, list[float]] = {}
        for values in step.values:
            for name in values:
                found.setdefault(name, []).append(next(totals))
        means.append({name: sum(parts) / len(parts) for name, parts in found.items()})
    return means


def _numbers(scalars: Sequence[Tensor]) -> list[float]:
    """All in one transfer from the device."""
    return torch.stack([scalar.float() for scalar in scalars]).tolist() if scalars else []


def _require_finite(name: str, value: float, position: Position, is_last: bool) -> None:
    if not math.isfinite(value):
        outcome = "nothing was updated" if is_last else "no weights from then on were saved"
        raise UserError(
            f"the {name} is {value} at {position}; {outcome}. Lower optimizer.lr, set "
            "training.max_grad_norm, or look at the data of that step"
        )
