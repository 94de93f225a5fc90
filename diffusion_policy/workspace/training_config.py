"""The ``training`` section of a config: its fields, types and rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffusion_policy.util.config import declared, require_known
from diffusion_policy.util.errors import UserError

ON_PLATEAU = "reduce_on_plateau"
"""The schedule that follows the validation loss, see :class:`PlateauSchedule`."""
LR_SCHEDULERS = (
    "constant",
    "constant_with_warmup",
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    ON_PLATEAU,
)
"""Schedules of diffusers that need nothing but the numbers of warm-up and training steps, and
:data:`ON_PLATEAU`."""

_LEAST = {
    0: (
        "seed",
        "lr_warmup_steps",
        "plateau_patience",
        "plateau_threshold",
        "checkpoint_minutes",
        "tqdm_interval_sec",
    ),
    1: (
        "num_epochs",
        "max_steps",
        "log_every",
        "max_train_steps",
        "max_val_steps",
        "gradient_accumulate_every",
        "rollout_every",
        "checkpoint_every",
        "val_every",
        "sample_every",
        "num_threads",
    ),
}


def _without_effect(default: Any) -> Any:
    """A field that changes neither what is learned nor how it is scored."""
    return field(default=default, metadata={"effect": "none"})


def _on_resume(default: Any) -> Any:
    """A field that has an effect, and that may all the same change when a run is resumed."""
    return field(default=default, metadata={"effect": "resume"})


@dataclass
class TrainingConfig:
    """How long and how to train; an epoch is one pass over the training samples.

    A field's metadata ``effect`` tells which settings another run may differ in and be the same:
    ``none`` for those without effect on results, ``resume`` for those that may change when a run
    is resumed. All others may not.

    Attributes:
        device: auto, cpu, cuda, cuda:1, mps.
        precision: of matrix products in training: fp32, bf16, fp16 (with loss scaling), or auto,
            which is bf16 where the device computes with it natively. Weights, losses and
            evaluation stay float32.
        fsdp: divide weights, gradients and optimiser state among the processes of torchrun, for
            models too large for one device (FSDP2).
        compile: run the networks through torch.compile in training; needs a C++ compiler on the
            CPU, and pays off in long runs on a GPU.
        seed: of weights, data order, augmentation and episode split.
        debug: two epochs of three steps, to see that everything works.
        resume: continue from checkpoints/latest.ckpt of the output directory if it is there.
        num_epochs: length of training in epochs.
        max_steps: length in optimiser steps instead; None for num_epochs. The last epoch may be
            cut short, and ends like any other.
        max_train_steps, max_val_steps: cap on steps an epoch and on validation batches; None
            for no cap.
        gradient_accumulate_every: batches whose gradients are averaged into one step.
        max_grad_norm: gradients are scaled down to this norm; None leaves them.
        lr_scheduler: one of :data:`LR_SCHEDULERS`.
        lr_warmup_steps: steps over which the learning rate rises from 0.
        plateau_patience, plateau_threshold, plateau_factor: reduce_on_plateau multiplies the
            learning rate by the factor after more than ``patience`` validations in a row whose
            loss is not less than the best one by this share of it.
        use_ema: average weights over steps and evaluate the average.
        rollout_every, checkpoint_every, val_every, sample_every: epochs between each; all of them
            also happen after the last epoch.
        checkpoint_minutes: also save the latest checkpoint after so many minutes within an
            epoch; None for never.
        log_every: steps between looks at losses, within an epoch. A GPU need not wait in between;
            a record of the log then holds means over these steps.
        num_threads: threads of torch on the CPU; None for torch's choice.
        tqdm_interval_sec: seconds between refreshes of the progress bar.
    """

    debug_settings: ClassVar[Mapping[str, Any]] = {
        "num_epochs": 2,
        "max_steps": None,
        "max_train_steps": 3,
        "max_val_steps": 3,
        "rollout_every": 1,
        "checkpoint_every": 1,
        "val_every": 1,
        "sample_every": 1,
    }

    device: str = _without_effect("auto")
    precision: str = "auto"
    compile: bool = _without_effect(False)
    fsdp: bool = _without_effect(False)
    seed: int = 42
    debug: bool = _without_effect(False)  # what it sets is compared
    resume: bool = _without_effect(True)
    num_epochs: int = _on_resume(100)
    max_steps: int | None = _on_resume(None)
    max_train_steps: int | None = None
    max_val_steps: int | None = _on_resume(None)
    gradient_accumulate_every: int = 1
    max_grad_norm: float | None = None
    lr_scheduler: str = "cosine"
    lr_warmup_steps: int = 500
    plateau_patience: int = 2
    plateau_threshold: float = 0.01
    plateau_factor: float = 0.5
    use_ema: bool = True
    rollout_every: int = _on_resume(50)
    checkpoint_every: int = _without_effect(1)
    val_every: int = _without_effect(1)
    sample_every: int = _without_effect(5)
    checkpoint_minutes: float | None = _without_effect(10.0)
    log_every: int = _without_effect(1)
    num_threads: int | None = _without_effect(None)
    tqdm_interval_sec: float = _without_effect(1.0)

    @classmethod
    def parse(cls, section: DictConfig) -> TrainingConfig:
        """Check the section's keys, types and ranges.

        Raises:
            UserError: names the field, its value and the remedy.
        """
        require_known("training", section, sorted(f.name for f in fields(cls)))
        try:
            config: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), section))
        except OmegaConfBaseException as error:
            raise UserError(f"training.{error.full_key}: {str(error).splitlines()[0]}") from None
        config._check_ranges()
        return config

    def is_over(self, epochs: int, steps: int, epoch_steps: int = 0) -> bool:
        """Whether training ends here.

        Args:
            epochs, steps: done in all.
            epoch_steps: done in an epoch that has not ended yet.
        """
        if self.max_steps is None:
            return epochs >= self.num_epochs
        return steps >= self.max_steps and epoch_steps == 0

    def _check_ranges(self) -> None:
        for least, names in _LEAST.items():
            for name in names:
                value = getattr(self, name)
                if value is not None and not value >= least:
                    raise UserError(f"training.{name} is {value}; use at least {least}")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise UserError(
                f"training.max_grad_norm is {self.max_grad_norm}; use more than 0, or null for none"
            )
        if not 0 < self.plateau_factor < 1:
            raise UserError(
                f"training.plateau_factor is {self.plateau_factor}; use more than 0, less than 1"
            )
        if self.lr_scheduler not in LR_SCHEDULERS:
            raise UserError(
                f"training.lr_scheduler is {self.lr_scheduler!r}; use one of "
                f"{', '.join(LR_SCHEDULERS)}"
            )


def apply_debug(cfg: DictConfig) -> None:
    """Shrink a run to a minute: a check that it works, not that it learns.

    Training, policy, dataset and runner each say how, in the ``debug_settings`` of their class.
    """
    OmegaConf.update(cfg, "training", dict(TrainingConfig.debug_settings), force_add=True)
    for section in ("policy", "task.dataset", "task.env_runner"):
        for key, settings in declared(cfg, section, "debug_settings"):
            OmegaConf.update(cfg, key, dict(settings), force_add=True)
