"""Exponential moving average of a model's weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from diffusion_policy.util.errors import require

M = TypeVar("M", bound=nn.Module)


class EMAModel:
    """Keeps ``averaged_model`` a moving average of the model that trains.

    The decay of step n is ``clip(1 - (1 + n / inv_gamma) ** -power, min_value, max_value)`` and 0
    at the first step, so that the average starts from trained weights, not from initial ones
    (after Crowson's crowsonkb/k-diffusion; values as in Diffusion Policy).

    Args:
        model: the copy to average into, see :func:`copy_to_average`; put to eval mode and frozen.
        update_after_step: steps to copy weights before averaging starts.
        inv_gamma, power, min_value, max_value: the decay's shape. power 3/4 reaches 0.999 at
            10,000 steps, 2/3 at 31,600.

    Raises:
        UserError: a setting is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        update_after_step: int = 0,
        inv_gamma: float = 1.0,
        power: float = 2 / 3,
        min_value: float = 0.0,
        max_value: float = 0.9999,
    ) -> None:
        require(
            update_after_step >= 0, "ema.update_after_step", update_after_step, "use at least 0"
        )
        require(inv_gamma > 0, "ema.inv_gamma", inv_gamma, "use more than 0")
        require(power >= 0, "ema.power", power, "use at least 0")
        require(0 <= min_value <= 1, "ema.min_value", min_value, "use 0..1")
        remedy = f"use ema.min_value ({min_value})..1"
        require(min_value <= max_value <= 1, "ema.max_value", max_value, remedy)
        self.averaged_model = model.eval().requires_grad_(False)
        self.update_after_step = update_after_step
        self.inv_gamma = inv_gamma
        self.power = power
        self.min_value = min_value
        self.max_value = max_value
        self.decay = 0.0
        self.optimization_step = 0

    def get_decay(self, optimization_step: int) -> float:
        """Decay in [min_value, max_value] for that step, 0 at the first ones."""
        step = max(0, optimization_step - self.update_after_step - 1)
        if step <= 0:
            return 0.0
        value = 1 - (1 + step / self.inv_gamma) ** -self.power
        return max(self.min_value, min(value, self.max_value))

    @torch.no_grad()
    def step(self, new_model: nn.Module) -> None:
        """Move the average towards ``new_model``; buffers and frozen parameters are copied."""
        self.decay = self.get_decay(self.optimization_step)
        averages: list[Tensor] = []
        values: list[Tensor] = []
        parameters = self.averaged_model.parameters(), new_model.parameters()
        for average, value in zip(*parameters, strict=True):
            if value.requires_grad:
                averages.append(average)
                values.append(value)
            elif average is not value:
                average.copy_(value)
        # average = decay * average + (1 - decay) * value
        torch._foreach_lerp_(averages, values, 1 - self.decay)
        buffers = self.averaged_model.buffers(), new_model.buffers()
        for averaged, newest in zip(*buffers, strict=True):
            averaged.copy_(newest)
        self.optimization_step += 1

    def state_dict(self) -> dict[str, int | float]:
        """The counter; for the average itself see :func:`averaged_state`."""
        return {"optimization_step": self.optimization_step, "decay": self.decay}

    def load_state_dict(self, state: dict[str, int | float]) -> None:
        self.optimization_step = int(state["optimization_step"])
        self.decay = float(state["decay"])


def copy_to_average(model: M) -> M:
    """A copy of ``model`` to average into; frozen parameters are shared with it."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters() if not p.requires_grad})


def averaged_state(average: nn.Module, model: nn.Module) -> dict[str, Tensor]:
    """The entries of the average's state_dict that differ from the model's: of what trains."""
    trains = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    return {key: value for key, value in average.state_dict().items() if key in trains}


def merged_state(
    model: Mapping[str, Tensor], average: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """The whole state_dict of the averaged model.

    Args:
        model: state_dict of the model that trains.
        average: its :func:`averaged_state`, or a whole state_dict; None where nothing is averaged.
    """
    return {**model, **(average or {})}
