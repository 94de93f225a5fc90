"""How noise becomes a trajectory: diffusion and flow matching behind one interface.

A process knows nothing about networks, observations or robots. To train, a policy gives it
``predict(x, time)``, any function from a noisy trajectory (B, T, D) and a time (B,) to an output of
the shape of ``x``. To act, the policy gives it ``prepare(times)``, which returns such a function of
``x`` alone for each time, so that a network computes in advance what does not depend on ``x``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from diffusion_policy.model.common import batch_random
from diffusion_policy.util.errors import UserError, require

Predict = Callable[[Tensor, Tensor], Tensor]
Prepare = Callable[[Sequence[Tensor]], Iterable[Callable[[Tensor], Tensor]]]
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
SPACINGS = ("whole", "inner")
_INNER = (0.9, 0.05)
"""First and last level of the spacing ``inner``, as shares of all levels."""
_FIELD = "policy.noise_scheduler"  # for errors


class Process(ABC):
    """Turns clean trajectories into training pairs, and noise into clean trajectories.

    Args:
        num_inference_steps: network passes per sample.

    Attributes:
        bounded: whether samples are kept in [-1, 1].
        inference_settings: see :class:`~diffusion_policy.policy.base_policy.BasePolicy`.
    """

    inference_settings: ClassVar[tuple[str, ...]] = ("num_inference_steps",)
    bounded: bool = False

    def __init__(self, num_inference_steps: int) -> None:
        _require_count("num_inference_steps", num_inference_steps)
        self.num_inference_steps = num_inference_steps

    @abstractmethod
    def corrupt(self, clean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Training pairs at random times.

        Returns:
            The noisy trajectory (B, T, D), its time (B,) as the network sees it, and the target
            of the network output (B, T, D).
        """

    @abstractmethod
    def times(self, device: torch.device) -> list[Tensor]:
        """The scalar times of the ``num_inference_steps`` passes, noisiest first."""

    @abstractmethod
    def step(
        self, output: Tensor, index: int, x: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        """``x`` after pass number ``index``, whose network output is ``output``."""

    def loss(self, predict: Predict, clean: Tensor, known: Tensor | None = None) -> Tensor:
        """MSE of the network output; known entries are masked out.

        Args:
            clean: (B, T, D) normalised.
            known: (B, T, D) bool, entries that are given when sampling: they are clean in the input
                and have no error. None: nothing is known.
        """
        noisy, time, target = self.corrupt(clean, batch_random.randn(clean.shape, clean.device))
        if known is None:
            return F.mse_loss(predict(noisy, time).float(), target)
        noisy = torch.where(known, clean, noisy)
        error = F.mse_loss(predict(noisy, time).float(), target, reduction="none")
        return error.masked_fill(known, 0).mean()

    def sample(
        self,
        prepare: Prepare,
        shape: tuple[int, int, int],
        generators: Sequence[torch.Generator],
        device: torch.device,
        *,
        clean: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """Clean trajectories (B, T, D) from noise.

        Args:
            prepare: from the scalar times of all passes to the passes, see the top of this file.
            generators: B of them, on the CPU. A row draws from its own generator alone, so that it
                is the same in any batch.
            clean, known: (B, T, D) values, and bool where they are given and stay as they are.
        """
        x = randn_tensor(shape, generator=list(generators), device=device)
        for index, predict in enumerate(prepare(self.times(device))):
            if clean is not None and known is not None:
                x = torch.where(known, clean, x)
            x = self.step(predict(x).float(), index, x, generators)
        return x if clean is None or known is None else torch.where(known, clean, x)


class Diffusion(Process):
    """Denoising diffusion on a discrete schedule, by the schedulers of ``diffusers``.

    Training is the same for every sampler, so a policy trained with one acts with another.

    Args:
        sampler: ``ddpm`` (Ho et al. 2020), ``ddim`` (Song et al. 2021, deterministic) or
            ``dpm_solver`` (Lu et al. 2022, second order).
        num_train_timesteps: noise levels.
        num_inference_steps: how many of them a sample visits; None visits all.
        beta_start, beta_end, beta_schedule: see ``diffusers``; squaredcos_cap_v2 needs no ends.
        prediction_type: what the network predicts: ``epsilon`` (the noise), ``sample`` (the clean
            trajectory) or ``v_prediction`` (Salimans & Ho 2022).
        clip_sample: keep the estimate of the clean trajectory in [-1, 1].
        timestep_spacing: which levels a sample visits. ``whole``: all along the schedule, as
            ``diffusers`` spaces them for the sampler. ``inner``: evenly from 90 % of the levels
            down to 5 %, since a pass at a level with hardly any noise is wasted when there are few
            passes.

    Raises:
        UserError: a setting is unknown or out of range.
    """

    _SAMPLERS: ClassVar[dict[str, tuple[Any, dict[str, Any]]]] = {
        "ddpm": (DDPMScheduler, {"variance_type": "fixed_small"}),
        "ddim": (DDPMScheduler, {}),  # for its levels; the step is our own
        # The cosine schedule ends in pure noise, from which no clean trajectory can be computed.
        # -5.1 keeps to the levels before, as diffusers recommends.
        "dpm_solver": (DPMSolverMultistepScheduler, {"lambda_min_clipped": -5.1}),
    }

    inference_settings: ClassVar[tuple[str, ...]] = (
        *Process.inference_settings,
        "sampler",
        "timestep_spacing",
    )

    def __init__(
        self,
        sampler: str = "ddpm",
        *,
        num_train_timesteps: int = 100,
        num_inference_steps: int | None = None,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "squaredcos_cap_v2",
        prediction_type: str = "epsilon",
        clip_sample: bool = True,
        timestep_spacing: str = "whole",
    ) -> None:
        _require_count("num_train_timesteps", num_train_timesteps)
        steps = num_train_timesteps if num_inference_steps is None else num_inference_steps
        super().__init__(steps)
        _require_one_of("sampler", sampler, self._SAMPLERS)
        _require_one_of("prediction_type", prediction_type, PREDICTION_TYPES)
        _require_one_of("timestep_spacing", timestep_spacing, SPACINGS)
        first, last = (int(share * num_train_timesteps) for share in _INNER)
        self._inner = (first, last) if timestep_spacing == "inner" else None
        _check_steps(steps, num_train_timesteps, sampler, self._inner)
        scheduler, options = self._SAMPLERS[sampler]
        if sampler != "dpm_solver":
            options = {**options, "clip_sample": clip_sample}
        elif clip_sample:
            # Its thresholds, which may follow the sample, are kept at 1.
            options = {**options, "thresholding": True, "sample_max_value": 1.0}
        try:
            self._scheduler: Any = scheduler(
                num_train_timesteps=num_train_timesteps,
                beta_start=beta_start,
                beta_end=beta_end,
                beta_schedule=beta_schedule,
                prediction_type=prediction_type,
                **options,
            )
        except NotImplementedError as error:
            raise UserError(
                f"{_FIELD}.beta_schedule is {beta_schedule!r}; use linear, scaled_linear or "
                "squaredcos_cap_v2"
            ) from error
        self.num_train_timesteps = num_train_timesteps
        self.prediction_type = prediction_type
        self.bounded = clip_sample
        self.sampler = sampler

    def corrupt(self, clean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        time = batch_random.randint(self.num_train_timesteps, (len(clean),), clean.device)
        # Not the scheduler's add_noise: dpm_solver's depends on the sampling that came before.
        abar = self._scheduler.alphas_cumprod.to(clean)[time][:, None, None]
        noisy = abar.sqrt() * clean + (1 - abar).sqrt() * noise
        if self.prediction_type == "epsilon":
            target = noise
        elif self.prediction_type == "sample":
            target = clean
        else:
            target = abar.sqrt() * noise - (1 - abar).sqrt() * clean
        return noisy, time, target

    def times(self, device: torch.device) -> list[Tensor]:
        # The scheduler's own times stay on the CPU: it branches on them.
        if self._inner is None:
            self._scheduler.set_timesteps(self.num_inference_steps)
        else:
            levels = torch.linspace(*self._inner, self.num_inference_steps).round().int()
            self._scheduler.set_timesteps(timesteps=levels.tolist())
        return list(self._scheduler.timesteps.to(device))

    def step(
        self, output: Tensor, index: int, x: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        if self.sampler == "ddim":
            return self._ddim_step(output, index, x)
        options = {"generator": list(generators)} if self.sampler == "ddpm" else {}
        time = self._scheduler.timesteps[index]
        return self._scheduler.step(output, time, x, **options).prev_sample

    def _ddim_step(self, output: Tensor, index: int, x: Tensor) -> Tensor:
        """Replace the noise in ``x`` by the same noise at the strength of the next level.

        The DDIM of ``diffusers`` is not used, since it assumes equal distances between levels.
        """
        levels = self._scheduler.alphas_cumprod[self._scheduler.timesteps]
        abar, next_abar = [*levels, torch.ones(())][index : index + 2]
        if self.prediction_type == "epsilon":
            clean, noise = (x - (1 - abar).sqrt() * output) / abar.sqrt(), output
        elif self.prediction_type == "sample":
            clean, noise = output, (x - abar.sqrt() * output) / (1 - abar).sqrt()
        else:
            clean = abar.sqrt() * x - (1 - abar).sqrt() * output
            noise = abar.sqrt() * output + (1 - abar).sqrt() * x
        if self.bounded:
            clean = clean.clamp(-1, 1)
        return next_abar.sqrt() * clean + (1 - next_abar).sqrt() * noise


class FlowMatching(Process):
    """Rectified flow (Liu et al. 2022; Lipman et al. 2022), sampled by Euler steps.

    At time s in [0, 1] a trajectory is ``s * clean + (1 - s) * noise``; the network predicts the
    velocity ``clean - noise``.

    Args:
        num_inference_steps: Euler steps.
        time_scale: the network sees ``s * time_scale``, since its embedding of time is made for
            numbers of that size.

    Raises:
        UserError: a setting is out of range.
    """

    def __init__(self, num_inference_steps: int = 10, *, time_scale: float = 100.0) -> None:
        super().__init__(num_inference_steps)
        require(time_scale > 0, f"{_FIELD}.time_scale", time_scale, "use more than 0")
        self.time_scale = time_scale

    def corrupt(self, clean: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s = batch_random.rand((len(clean),), clean.device)
        share = s[:, None, None]
        return share * clean + (1 - share) * noise, s * self.time_scale, clean - noise

    def times(self, device: torch.device) -> list[Tensor]:
        n = self.num_inference_steps
        return list(torch.arange(n, device=device) / n * self.time_scale)

    def step(
        self, output: Tensor, index: int, x: Tensor, generators: Sequence[torch.Generator]
    ) -> Tensor:
        return x + output / self.num_inference_steps


def _require_count(name: str, value: object) -> None:
    # Not isinstance: True is an int.
    fits = type(value) is int and value >= 1
    require(fits, f"{_FIELD}.{name}", value, "use a whole number, at least 1")


def _require_one_of(name: str, value: str, known: Iterable[str]) -> None:
    require(value in known, f"{_FIELD}.{name}", value, f"use one of {', '.join(known)}")


def _check_steps(steps: int, n_levels: int, sampler: str, inner: tuple[int, int] | None) -> None:
    field = f"{_FIELD}.num_inference_steps"
    levels = f"num_train_timesteps ({n_levels})"
    require(steps <= n_levels, field, steps, f"use at most {levels}")
    # The solver divides by the difference of neighbouring levels, which must not coincide.
    fits = sampler != "dpm_solver" or steps < n_levels
    require(fits, field, steps, f"dpm_solver needs fewer than {levels}")
    if inner is not None:
        most = inner[0] - inner[1]
        require(steps <= most, field, steps, f"use at most {most}, or timestep_spacing=whole")
