"""How the learning rate changes over training."""

from __future__ import annotations

from typing import Any

from diffusers.optimization import get_scheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from diffusion_policy.workspace.training_config import ON_PLATEAU, TrainingConfig


def build_schedule(
    optimizer: Optimizer, training: TrainingConfig, n_steps: int
) -> LRScheduler | PlateauSchedule:
    """The schedule that ``training`` names, for a training of ``n_steps`` optimiser steps."""
    if training.lr_scheduler == ON_PLATEAU:
        return PlateauSchedule(optimizer, training)
    return get_scheduler(
        training.lr_scheduler,
        optimizer,
        num_warmup_steps=training.lr_warmup_steps,
        num_training_steps=n_steps,
    )


class PlateauSchedule:
    """Multiplies the learning rate by a factor after validations without a better loss.

    Over the first ``lr_warmup_steps`` steps the rate rises from 0, as in other schedules. It has
    their methods; :meth:`validated` is its own.

    Args:
        optimizer: whose rates are set.
        training: its ``lr_warmup_steps`` and ``plateau_*`` settings.
    """

    def __init__(self, optimizer: Optimizer, training: TrainingConfig) -> None:
        self._optimizer = optimizer
        self._peaks = [float(group["lr"]) for group in optimizer.param_groups]
        self._n_warmup, self._n_steps = training.lr_warmup_steps, 0
        self._plateau = ReduceLROnPlateau(
            optimizer,
            factor=training.plateau_factor,
            patience=training.plateau_patience,
            threshold=training.plateau_threshold,
            threshold_mode="rel",
        )
        self._warm_up()

    def step(self) -> None:
        """Called after every optimiser step."""
        self._n_steps += 1
        self._warm_up()

    def validated(self, loss: float) -> None:
        """Called after every validation, with its loss; nothing happens while warming up."""
        if self._n_steps >= self._n_warmup:
            self._plateau.step(loss)

    def get_last_lr(self) -> list[float]:
        """The rate of each group of parameters."""
        return [float(group["lr"]) for group in self._optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next rates depend on, as plain values."""
        return {"n_steps": self._n_steps, "plateau": self._plateau.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; the rates themselves are part of the optimiser's."""
        self._n_steps = state["n_steps"]
        self._plateau.load_state_dict(state["plateau"])

    def _warm_up(self) -> None:
        if self._n_steps <= self._n_warmup and self._n_warmup:
            for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
                group["lr"] = peak * self._n_steps / self._n_warmup
