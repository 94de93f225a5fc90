"""DOT: predict a chunk of actions with one pass of a decoder, and average overlapping chunks.

Facts of the method: the DOT technical report (Decoder-Only Transformer for PushT and ALOHA).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_policy.model.common import batch_random
from diffusion_policy.model.common.inference import compiled
from diffusion_policy.model.common.lora import LoRAConfig, merge_lora
from diffusion_policy.model.dot.dot_network import DOTNetwork
from diffusion_policy.model.vision.resnet import STRIDE, fold_frozen_norm, merge_conv_lora
from diffusion_policy.policy.base_policy import BasePolicy, Batch
from diffusion_policy.spec.window import Window
from diffusion_policy.util.errors import UserError

# Inputs of the network and the modality whose observation keys make each.
_LOW_DIM_INPUTS = {"state": "STATE", "environment_state": "ENV"}


class DOTPolicy(BasePolicy):
    """Decoder-only transformer policy.

    Time, in control steps relative to now, for the default settings::

        observation    -10                 -1  0
        action target  -10                 -1  0  1 ... 19
        loss weight      1                  1  1  0.9 ... 0.9^19   (divided by their mean)
        executed                               0

    The oldest observation is drawn from 5..15 steps ago in training, one draw a batch, and is
    exactly 10 steps old at inference.

    Args:
        shape_meta: observations and action of the task.
        n_obs_steps: observations: one from ``lookback_obs_steps`` ago and the latest
            ``n_obs_steps - 1``; 1 is the current one alone.
        lookback_obs_steps, lookback_aug: age of the oldest observation and its jitter.
        train_horizon: actions from now on that the loss covers.
        inference_horizon: actions from now on that are predicted at inference, and the number of
            past chunks that are averaged.
        train_alpha: loss weight of a future action by its distance in steps.
        alpha: weight of a past chunk by its age in steps; 0 follows the newest one alone.
        predict_every_n: run the network only every n-th step; the last chunk is followed between.
        return_every_n: steps of the plan to advance a control step; more moves faster.
        stall_skip: steps of a new plan to skip when the low-dim inputs are where they were in the
            oldest observation, at rest or back from a detour; 0 never skips. People pause before
            they go round an object; a policy that learned so, and cannot tell how long it has
            waited, waits for ever, though its plan goes on.
        stall_tolerance: difference of normalised low-dim inputs up to which they are the same.
        state_noise: uniform noise on normalised low-dim inputs in training.
        crop_scale: images are cropped to a share drawn from [crop_scale, 1] in training.
        noise_decay: factor by which noise and crop fade a training step.
        image_size: (height, width) that images are resized to (nearest neighbour).
        normalization: mode by modality.
        merge_lora: fold the adapters into the base weights for inference.
        decoder_lora: {rank, alpha, dropout} of adapters in the decoder, its base frozen.

    Other arguments: see :class:`DOTNetwork`.

    Raises:
        UserError: a setting is out of range, or the horizons do not fit each other.
    """

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        *,
        n_obs_steps: int = 3,
        lookback_obs_steps: int = 10,
        lookback_aug: int = 5,
        train_horizon: int = 20,
        inference_horizon: int = 20,
        train_alpha: float = 0.9,
        alpha: float = 0.75,
        predict_every_n: int = 1,
        return_every_n: int = 1,
        stall_skip: int = 0,
        stall_tolerance: float = 0.015,
        state_noise: float = 0.01,
        crop_scale: float = 0.8,
        noise_decay: float = 0.999995,
        image_size: Sequence[int] = (96, 96),
        normalization: Mapping[str, str] | None = None,
        merge_lora: bool = True,
        decoder_lora: Mapping[str, Any] | None = None,
        **network: Any,
    ) -> None:
        super().__init__(shape_meta, normalization)
        _check_horizons(
            n_obs_steps,
            lookback_obs_steps,
            lookback_aug,
            train_horizon,
            inference_horizon,
            predict_every_n,
            return_every_n,
        )
        _check_augmentation(state_noise, crop_scale, noise_decay, image_size)
        _require(0 <= alpha <= 1, "alpha", alpha, "use 0..1")
        recent = tuple(range(-(n_obs_steps - 2), 1)) if n_obs_steps > 1 else (0,)
        oldest = (-lookback_obs_steps,) if n_obs_steps > 1 else ()
        obs_offsets = oldest + recent
        self.window = Window(
            obs_offsets=obs_offsets,
            action_offsets=obs_offsets + tuple(range(1, train_horizon)),
            jitter=lookback_aug if n_obs_steps > 1 else 0,
        )
        self.inference_horizon = inference_horizon
        self.predict_every_n = predict_every_n
        self.return_every_n = return_every_n
        self.stall_skip = stall_skip
        self.stall_tolerance = stall_tolerance
        self.state_noise = state_noise
        self.crop_scale = crop_scale
        self.noise_decay = noise_decay
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.merge_adapters = merge_lora

        self.inputs = {
            name: keys
            for name, modality in _LOW_DIM_INPUTS.items()
            if (keys := self.shape_meta.keys_of(modality))
        }
        self.image_keys = sorted(self.shape_meta.keys_of("VISUAL"))
        _check_stall(
            stall_skip,
            stall_tolerance,
            most=inference_horizon - predict_every_n * return_every_n,
            can_tell=n_obs_steps > 1 and bool(self.inputs),
        )
        sizes = {
            f"{name}_dim": sum(
                int(torch.Size(self.shape_meta.obs[key].shape).numel())
                for key in self.inputs.get(name, [])
            )
            for name in _LOW_DIM_INPUTS
        }
        self.model = DOTNetwork(
            **sizes,
            n_cameras=len(self.image_keys),
            action_dim=self.shape_meta.action.shape[0],
            n_obs_steps=n_obs_steps,
            lookback=lookback_obs_steps,
            train_horizon=train_horizon,
            inference_horizon=inference_horizon,
            image_size=self.image_size,
            decoder_lora=None if decoder_lora is None else LoRAConfig(**decoder_lora),
            **network,
        )
        # Training steps done: noise and crop follow from it, so that they survive a resume.
        self.register_buffer("n_updates", torch.zeros((), dtype=torch.int64))
        weights = loss_weights(n_obs_steps, train_horizon, train_alpha)
        self.register_buffer("loss_weights", weights, persistent=False)
        self.register_buffer("plan_weights", plan_weights(inference_horizon, alpha), False)
        self.reset()

    # ------------------------------------------------------------------ training

    def compute_loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Mean of L1 error x weight of its step, padded steps counting as 0."""
        target = self.normalizer["action"].normalize(batch["action"])
        predicted = self.model(self._network_inputs(batch["obs"]))
        n_rows = predicted.shape[1]
        valid = (~batch["action_is_pad"][:, :n_rows, None]).to(predicted.dtype)
        error = F.l1_loss(predicted, target[:, :n_rows], reduction="none")
        weights = self.loss_weights[:n_rows, None]
        return (error * valid * weights).mean(), {}

    def after_update(self) -> None:
        """Fade the augmentation."""
        self.n_updates += 1

    def _network_inputs(self, obs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Normalised (and in training augmented) inputs of the network from raw (B, To, ...)."""
        fade = self.noise_decay ** int(self.n_updates) if self.training else 0.0
        inputs = {}
        for name, keys in self.inputs.items():
            x = torch.cat(
                [self.normalizer[key].normalize(obs[key].flatten(2)) for key in keys], dim=-1
            )
            if self.training and self.state_noise > 0:
                x = x + (batch_random.rand(x.shape, x.device) * 2 - 1) * (self.state_noise * fade)
            inputs[name] = x
        if self.image_keys:
            # One time after another, each with all its cameras: (B, To * cameras, 3, H, W).
            images = torch.stack(
                [
                    _resize(self.normalizer[key].normalize(obs[key]), self.image_size)
                    for key in self.image_keys
                ],
                dim=2,
            ).flatten(1, 2)
            if self.training and self.crop_scale < 1:
                images = _random_crop(images, 1 - (1 - self.crop_scale) * fade)
            inputs["images"] = images
        return inputs

    # ------------------------------------------------------------------ inference

    def reset(
        self, env_ids: Sequence[int] | None = None, seeds: Sequence[int] | None = None
    ) -> None:
        """Forget plans and predictions of these environments, or of all when None."""
        if env_ids is None:
            self._plans = torch.empty(0)
            self._age = torch.empty(0, dtype=torch.int64)
        else:
            known = [i for i in env_ids if i < len(self._age)]
            self._age[known] = 0

    @torch.no_grad()
    def predict_action(
        self, obs: dict[str, Tensor], env_ids: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Ensembled actions from now on, behind the newest prediction of the past.

        Each environment keeps its newest plan and the last ``inference_horizon`` ones, aligned so
        that column 0 is now: ``action = sum_k weight_k * plan_k[0]`` over plans by age k, and
        likewise for later columns. Every step along the plan ages them all; ``return_every_n``
        such steps make a control step, and the last one's action is executed. One that stalled
        goes on from a later step.
        """
        n_rows = len(next(iter(obs.values())))
        ids = torch.arange(n_rows) if env_ids is None else torch.as_tensor(env_ids)
        self._make_room(int(ids.max()) + 1)
        due = self._age[ids] % self.predict_every_n == 0
        if due.any():
            rows = due.to(self.device)
            # Boolean indexing copies, so skip it in the usual case that all are due.
            wanted = obs if due.all() else {key: value[rows] for key, value in obs.items()}
            self._store(ids[due], self.model(self._network_inputs(wanted)))
        newest = self._newest[ids]
        if self.stall_skip:
            stalled = ids[due & self._stalled(ids, obs)]
            for _ in range(self.stall_skip if len(stalled) else 0):
                self._advance(stalled)
        for _ in range(self.return_every_n):
            planned = self._advance(ids)
        self._age[ids] += 1
        horizon, stride = self.inference_horizon, self.return_every_n
        past, ahead = newest[:, :-horizon], planned[:, : horizon - stride + 1 : stride]
        predicted = self.normalizer["action"].unnormalize(torch.cat([past, ahead], dim=1))
        now = past.shape[1]
        return {"action": predicted[:, now : now + 1], "action_pred": predicted}

    @property
    def n_actions_ahead(self) -> int:
        """What is left of a plan, part of which may have been skipped, when the next one is due."""
        steps = self.inference_horizon - self.stall_skip
        return steps // self.return_every_n - (self.predict_every_n - 1)

    @property
    def action_pred_offsets(self) -> tuple[int, ...]:
        """The past, and the steps of the plan that ``return_every_n`` leaves."""
        stride = self.return_every_n
        past = tuple(offset for offset in self.window.action_offsets if offset < 0)
        return past + tuple(range(stride - 1, self.inference_horizon, stride))

    def prepare_for_inference(self) -> None:
        """Fold adapters and batch norms into the weights; outputs stay the same."""
        if self.merge_adapters:
            merge_conv_lora(self.model)
            merge_lora(self.model)
        fold_frozen_norm(self.model)
        if self.device.type == "cpu":  # convolutions of 96 x 96 pixels: 17 % faster there
            self.to(memory_format=torch.channels_last)
        self.requires_grad_(False)

    def compile_for_inference(self) -> None:
        """See :class:`BasePolicy`."""
        self.model.forward = compiled(self.model.forward, self.device)

    def _make_room(self, n_envs: int) -> None:
        missing = n_envs - len(self._age)
        if missing <= 0:
            return
        horizon, action_dim = self.inference_horizon, self.shape_meta.action.shape[0]
        n_predicted = len(self.window.action_offsets) - self.model.n_training_only
        plans = torch.zeros(missing, horizon, horizon, action_dim, device=self.device)
        newest = torch.zeros(missing, n_predicted, action_dim, device=self.device)
        age = torch.zeros(missing, dtype=torch.int64)
        if len(self._age):
            plans = torch.cat([self._plans, plans])
            newest = torch.cat([self._newest, newest])
            age = torch.cat([self._age, age])
        self._plans, self._newest, self._age = plans, newest, age

    def _store(self, ids: Tensor, predicted: Tensor) -> None:
        """Make ``predicted`` (n, T, Da) the plan of environments ``ids``."""
        self._newest[ids] = predicted
        # With nothing before it, the first plan stands for all earlier ones.
        first = self._age[ids] == 0
        plan = predicted[first.to(predicted.device), -self.inference_horizon :]
        self._plans[ids[first]] = plan[:, None].expand(-1, self.inference_horizon, -1, -1)

    def _stalled(self, ids: Tensor, obs: dict[str, Tensor]) -> Tensor:
        """(n,) bool: the low-dim inputs are those of the oldest observation of this episode."""
        changes = [
            (normalized[:, -1] - normalized[:, 0]).abs().amax(-1)
            for keys in self.inputs.values()
            for key in keys
            for normalized in [self.normalizer[key].normalize(obs[key].flatten(2))]
        ]
        moved = torch.stack(changes).amax(0).cpu() > self.stall_tolerance
        return ~moved & (self._age[ids] >= -self.obs_offsets[0])

    def _advance(self, ids: Tensor) -> Tensor:
        """One step along the plan: (n, horizon, Da), mean of the kept plans from that step on."""
        newest = self._newest[ids]
        plan = newest[:, -self.inference_horizon :]
        plans = torch.cat([plan[:, None], self._plans[ids, :-1]], dim=1)
        # Not a matrix product, which autocast would round to a pixel.
        planned = (self.plan_weights[:, None, None] * plans).sum(1)
        self._plans[ids] = _next_step(plans, dim=2)
        self._newest[ids] = _next_step(newest, dim=1)
        return planned


def _next_step(plans: Tensor, dim: int) -> Tensor:
    """Plans seen from one step later: shifted along ``dim``, the end repeated."""
    last = plans.shape[dim] - 1
    return torch.cat([plans.narrow(dim, 1, last), plans.narrow(dim, last, 1)], dim)


def loss_weights(n_obs_steps: int, train_horizon: int, alpha: float) -> Tensor:
    """(train_horizon + n_obs_steps - 1,) weight of each target: 1 for the past, alpha^k for k
    steps ahead, divided by their mean."""
    past = torch.ones(n_obs_steps - 1)
    weights = torch.cat([past, alpha ** torch.arange(train_horizon)])
    return weights / weights.mean()


def plan_weights(horizon: int, alpha: float) -> Tensor:
    """(horizon,) weight of the chunk of each age, alpha^age, summing to 1."""
    weights = alpha ** torch.arange(horizon)
    return weights / weights.sum()


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, To, 3, H, W) -> (B, To, 3, *size), nearest neighbour."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images.flatten(0, 1), size, mode="nearest").unflatten(0, images.shape[:2])


def _random_crop(images: Tensor, smallest: float) -> Tensor:
    """Crop all images alike to one share of their sides, drawn from [smallest, 1]."""
    height, width = images.shape[-2:]
    share = smallest + (1 - smallest) * float(batch_random.rand(()))
    h, w = round(share * height), round(share * width)
    top = int(batch_random.randint(height - h + 1, ()))
    left = int(batch_random.randint(width - w + 1, ()))
    return images[..., top : top + h, left : left + w]


def _require(fits: bool, field: str, value: object, remedy: str) -> None:
    if not fits:
        raise UserError(f"policy.{field} is {value}; {remedy}")


def _check_stall(skip: int, tolerance: float, most: int, can_tell: bool) -> None:
    # Not isinstance: True is an int.
    _require(
        type(skip) is int and 0 <= skip <= most,
        "stall_skip",
        skip,
        f"use a whole number up to inference_horizon - predict_every_n * return_every_n ({most}), "
        "or the plan runs out",
    )
    fits = isinstance(tolerance, int | float) and tolerance >= 0
    _require(fits, "stall_tolerance", tolerance, "use at least 0")
    remedy = "use 0, or low-dim observations and n_obs_steps of more than 1 to tell a stall by"
    _require(can_tell or not skip, "stall_skip", skip, remedy)


def _check_augmentation(
    state_noise: float, crop_scale: float, noise_decay: float, image_size: Sequence[int]
) -> None:
    _require(state_noise >= 0, "state_noise", state_noise, "use at least 0")
    _require(0 < noise_decay <= 1, "noise_decay", noise_decay, "use more than 0 and at most 1")
    _require(0 < crop_scale <= 1, "crop_scale", crop_scale, "use more than 0 and at most 1")
    # A crop must fill as many cells of the backbone's last feature map as the whole picture:
    # spatial tokens have one position each.
    for side in image_size:
        cells, cropped = math.ceil(side / STRIDE), math.ceil(round(crop_scale * side) / STRIDE)
        smallest = ((cells - 1) * STRIDE + 1) / side
        _require(
            cells == cropped,
            "crop_scale",
            crop_scale,
            f"use more than {smallest:.2f}, or a crop has fewer than {cells} cells a side",
        )


def _check_horizons(
    n_obs_steps: int,
    lookback: int,
    lookback_aug: int,
    train_horizon: int,
    inference_horizon: int,
    predict_every_n: int,
    return_every_n: int,
) -> None:
    _require(n_obs_steps >= 1, "n_obs_steps", n_obs_steps, "use at least 1")
    _require(inference_horizon >= 1, "inference_horizon", inference_horizon, "use at least 1")
    _require(
        train_horizon >= inference_horizon,
        "train_horizon",
        train_horizon,
        f"use at least inference_horizon ({inference_horizon})",
    )
    if n_obs_steps > 1:
        newest = lookback - (n_obs_steps - 2)
        _require(
            newest >= 1,
            "lookback_obs_steps",
            lookback,
            f"use at least n_obs_steps - 1 ({n_obs_steps - 1})",
        )
        _require(
            0 <= lookback_aug < newest,
            "lookback_aug",
            lookback_aug,
            f"use 0..{newest - 1}, so that the oldest observation stays the oldest",
        )
    for field, value in (("return_every_n", return_every_n), ("predict_every_n", predict_every_n)):
        _require(
            1 <= value <= inference_horizon,
            field,
            value,
            f"use 1..inference_horizon ({inference_horizon})",
        )
    most = inference_horizon // return_every_n
    _require(
        predict_every_n <= most,
        "predict_every_n",
        predict_every_n,
        f"use at most inference_horizon // return_every_n ({most}), or the plan runs out",
    )
