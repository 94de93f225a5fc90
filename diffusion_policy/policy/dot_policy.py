"""DOT: predict a chunk of actions with one pass of a decoder, and average overlapping chunks.

Source: the DOT technical report (Decoder-Only Transformer for PushT and ALOHA).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_policy.model.common import batch_random
from diffusion_policy.model.common.inference import compiled
from diffusion_policy.model.common.lora import LoRAConfig, merge_lora
from diffusion_policy.model.common.normalizer import Normalizer
from diffusion_policy.model.dot.dot_network import DOTNetwork
from diffusion_policy.model.vision.feature_cache import FeatureCache
from diffusion_policy.model.vision.resnet import STRIDE, fold_frozen_norm, merge_conv_lora
from diffusion_policy.policy.base_policy import Batch
from diffusion_policy.policy.chunk_following import (
    ChunkFollower,
    ChunkPolicy,
    environments,
    geometric_weights,
    rows_of,
)
from diffusion_policy.spec.window import Window
from diffusion_policy.util.errors import require
from diffusion_policy.util.pytorch_util import flat_steps

_IMAGES_REMEMBERED = 4096
"""An image is encoded now, one step later and ``lookback_obs_steps`` later. In between, each
environment shows less than 2 x lookback other images: room for 50 environments with 3 cameras and a
lookback of 10. The features of an image take 512 bytes as one token of width 128, and 18 kB as nine
tokens of width 512."""
# Inputs of the network, and the modality of the observations that make up each of them.
_LOW_DIM_INPUTS = {"state": "STATE", "environment_state": "ENV"}


class DOTPolicy(ChunkPolicy):
    """Decoder-only transformer policy.

    Time, in control steps relative to now, for the default settings::

        observation    -10                 -1  0
        action target  -10                 -1  0  1 ... 19
        loss weight      1                  1  1  0.9 ... 0.9^19   (divided by their mean)
        executed                               0

    In training the oldest observation is 5 to 15 steps old, one random draw per batch. At inference
    it is exactly 10 steps old.

    Args:
        shape_meta: observations and action of the task.
        n_obs_steps: number of observations: one from ``lookback_obs_steps`` ago and the latest
            ``n_obs_steps - 1``; 1 is the current one alone.
        lookback_obs_steps, lookback_aug: age of the oldest observation and its jitter.
        train_horizon: actions from now on that the loss covers.
        inference_horizon: H, actions from now on that are predicted at inference, and the number of
            chunks that are averaged.
        train_alpha: loss weight of an action k steps ahead is ``train_alpha ** k``.
        alpha: a chunk that is k steps old has weight ``alpha ** k``; 0 follows the newest alone.
        predict_every_n, return_every_n, stall_skip: see :class:`ChunkFollower`. An environment
            stands still when its low-dim inputs equal those of the oldest observation: it rests, or
            is back from a detour. A policy that has learned to pause as people do, and cannot tell
            for how long it has paused, would wait for ever.
        stall_tolerance: difference of normalised low-dim inputs up to which they are equal.
        state_noise: uniform noise on normalised low-dim inputs in training.
        crop_scale: in training, images are cropped to a share of their sides, drawn from
            [crop_scale, 1].
        noise_decay: noise and crop fade by this factor per training step.
        image_size: (height, width) that images are resized to (nearest neighbour).
        normalization: mode by modality.
        merge_lora: fold the adapters into the base weights for inference.
        decoder_lora: {rank, alpha, dropout} of adapters in the decoder, its base frozen.

    Other arguments: see :class:`DOTNetwork`.

    Raises:
        UserError: a setting is out of range, or the horizons do not fit each other.
    """

    n_updates: Tensor
    loss_weights: Tensor

    further_settings_of = DOTNetwork
    inference_settings: ClassVar[tuple[str, ...]] = (
        *ChunkPolicy.inference_settings,
        "stall_skip",
        "stall_tolerance",
        "backbone_weights",
    )
    weight_settings: ClassVar[Mapping[str, Any]] = {
        "backbone_weights": None,
        "freeze_backbone": False,  # True needs weights
    }

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
            n_obs_steps, lookback_obs_steps, lookback_aug, train_horizon, inference_horizon
        )
        _check_augmentation(state_noise, crop_scale, noise_decay, image_size)
        self.window = _window(n_obs_steps, lookback_obs_steps, lookback_aug, train_horizon)
        self.follower = ChunkFollower(
            inference_horizon,
            geometric_weights(alpha),
            predict_every_n=predict_every_n,
            return_every_n=return_every_n,
            stall_skip=stall_skip,
        )
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
        _check_stall(stall_skip, stall_tolerance, n_obs_steps > 1 and bool(self.inputs))
        sizes: dict[str, Any] = {
            f"{name}_dim": sum(self.shape_meta.obs[key].size for key in self.inputs.get(name, []))
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
        if self.image_keys:
            self.features = FeatureCache(self.model.projections["images"], _IMAGES_REMEMBERED)
        # Training steps done; in the state_dict, since noise and crop depend on it.
        self.register_buffer("n_updates", torch.zeros((), dtype=torch.int64))
        weights = loss_weights(n_obs_steps, train_horizon, train_alpha)
        self.register_buffer("loss_weights", weights, persistent=False)

    # ------------------------------------------------------------------ training

    def compute_loss(self, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Mean over all targets of L1 error x weight of its step; padded targets count as 0."""
        normalizer = self.normalizer.of(batch.get("embodiment"))
        target = normalizer["action"].normalize(batch["action"])
        predicted = self.model(self._network_inputs(batch["obs"], normalizer))
        n_rows = predicted.shape[1]
        valid = (~batch["action_is_pad"][:, :n_rows, None]).to(predicted.dtype)
        error = F.l1_loss(predicted, target[:, :n_rows], reduction="none")
        weights = self.loss_weights[:n_rows, None]
        return (error * valid * weights).mean(), {}

    def after_update(self) -> None:
        """Fade the augmentation."""
        self.n_updates += 1

    def _network_inputs(
        self, obs: Mapping[str, Tensor], normalizer: Normalizer
    ) -> dict[str, Tensor]:
        """Inputs of the network, normalised and in training augmented, from raw (B, To, ...)."""
        fade = self.noise_decay ** int(self.n_updates) if self.training else 0.0
        inputs = {}
        for name, keys in self.inputs.items():
            x = torch.cat([normalizer[key].normalize(flat_steps(obs[key])) for key in keys], dim=-1)
            if self.training and self.state_noise > 0:
                x = x + (batch_random.rand(x.shape, x.device) * 2 - 1) * (self.state_noise * fade)
            inputs[name] = x
        if self.image_keys:
            # Time by time, and within a time camera by camera: (B, To * cameras, 3, H, W).
            images = torch.stack(
                [
                    _resize(normalizer[key].normalize(obs[key]), self.image_size)
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
        """Forget the chunks of these environments, or when None all chunks and images."""
        super().reset(env_ids)
        if env_ids is None and self.image_keys:
            self.features.clear()

    @torch.no_grad()
    def predict_action(
        self, obs: dict[str, Tensor], env_ids: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """The mean of the latest chunks from now on, behind the newest prediction of the past."""
        obs = self.observed(obs)
        normalizer = self.normalizer.of(self.embodiment)
        ids = environments(obs, env_ids)
        due = self.follower.due(ids)
        if due.any():
            inputs = self._network_inputs(rows_of(obs, due), normalizer)
            self.follower.take(ids[due], self.model(inputs))
        stalled = due & self._stalled(ids, obs, normalizer) if self.follower.stall_skip else None
        predicted = normalizer["action"].unnormalize(self.follower.follow(ids, stalled))
        now = self.window.action_offsets.index(0)
        return {"action": predicted[:, now : now + 1], "action_pred": predicted}

    def _stalled(self, ids: Tensor, obs: Mapping[str, Tensor], normalizer: Normalizer) -> Tensor:
        """(B,) bool: the low-dim inputs are those of the oldest observation of this episode."""
        changes = [
            (normalized[:, -1] - normalized[:, 0]).abs().amax(-1)
            for keys in self.inputs.values()
            for key in keys
            for normalized in [normalizer[key].normalize(flat_steps(obs[key]))]
        ]
        moved = torch.stack(changes).amax(0).cpu() > self.stall_tolerance
        return ~moved & (self.follower.n_control_steps(ids) >= -self.obs_offsets[0])

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
        self.model.forward = compiled(self.model.forward, self.device)  # type: ignore[method-assign]


def loss_weights(n_obs_steps: int, train_horizon: int, alpha: float) -> Tensor:
    """(train_horizon + n_obs_steps - 1,) weight of each target: 1 for the past, alpha^k for k
    steps ahead, divided by their mean."""
    past = torch.ones(n_obs_steps - 1)
    weights = torch.cat([past, alpha ** torch.arange(train_horizon)])
    return weights / weights.mean()


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


def _window(n_obs_steps: int, lookback: int, lookback_aug: int, train_horizon: int) -> Window:
    """The time steps that the policy reads and predicts; see the table in :class:`DOTPolicy`."""
    past = (-lookback, *range(2 - n_obs_steps, 0)) if n_obs_steps > 1 else ()
    return Window(
        obs_offsets=(*past, 0),
        action_offsets=(*past, *range(train_horizon)),
        jitter=lookback_aug if n_obs_steps > 1 else 0,
    )


def _check_horizons(
    n_obs_steps: int,
    lookback: int,
    lookback_aug: int,
    train_horizon: int,
    inference_horizon: int,
) -> None:
    require(n_obs_steps >= 1, "policy.n_obs_steps", n_obs_steps, "use at least 1")
    require(inference_horizon >= 1, "policy.inference_horizon", inference_horizon, "use at least 1")
    require(
        train_horizon >= inference_horizon,
        "policy.train_horizon",
        train_horizon,
        f"use at least inference_horizon ({inference_horizon})",
    )
    if n_obs_steps > 1:
        newest = lookback - (n_obs_steps - 2)
        require(
            newest >= 1,
            "policy.lookback_obs_steps",
            lookback,
            f"use at least n_obs_steps - 1 ({n_obs_steps - 1})",
        )
        require(
            0 <= lookback_aug < newest,
            "policy.lookback_aug",
            lookback_aug,
            f"use 0..{newest - 1}, so that the oldest observation stays the oldest",
        )


def _check_augmentation(
    state_noise: float, crop_scale: float, noise_decay: float, image_size: Sequence[int]
) -> None:
    share = "use more than 0 and at most 1"
    require(state_noise >= 0, "policy.state_noise", state_noise, "use at least 0")
    require(0 < noise_decay <= 1, "policy.noise_decay", noise_decay, share)
    require(0 < crop_scale <= 1, "policy.crop_scale", crop_scale, share)
    # A crop must fill as many cells of the backbone's last feature map as the whole image, since
    # each spatial token has a learned position.
    for side in image_size:
        cells, cropped = math.ceil(side / STRIDE), math.ceil(round(crop_scale * side) / STRIDE)
        smallest = ((cells - 1) * STRIDE + 1) / side
        require(
            cells == cropped,
            "policy.crop_scale",
            crop_scale,
            f"use more than {smallest:.2f}, or a crop has fewer than {cells} cells per side",
        )


def _check_stall(skip: int, tolerance: float, can_tell: bool) -> None:
    fits = isinstance(tolerance, int | float) and tolerance >= 0
    require(fits, "policy.stall_tolerance", tolerance, "use at least 0")
    remedy = "use 0, or low-dim observations and n_obs_steps of more than 1 to tell a stall by"
    require(can_tell or not skip, "policy.stall_skip", skip, remedy)
