"""ACT as published: a chunk of actions from one observation, with a style latent of each chunk.

Source: Zhao et al., Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware (2023).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_policy.model.act.act_network import ACTNetwork
from diffusion_policy.model.common.inference import compiled
from diffusion_policy.model.common.normalizer import Normalizer
from diffusion_policy.model.vision.resnet import fold_frozen_norm
from diffusion_policy.policy.chunk_regression import ChunkRegressionPolicy
from diffusion_policy.spec.batch import Batch
from diffusion_policy.util.errors import UserError, require
from diffusion_policy.util.pytorch_util import flat_steps

_LOW_DIM_INPUTS = {"state": "STATE", "environment_state": "ENV"}
"""Inputs of the network, and the modality of the observations that make up each of them."""


class ACTPolicy(ChunkRegressionPolicy):
    """Action chunking with transformers.

    Args:
        shape_meta: observations and action of the task; images or a state of the world among them.
        chunk_size: H, actions that are predicted from now on.
        n_action_steps, temporal_ensemble_coeff, predict_every_n, return_every_n: how the chunks are
            followed, see :class:`ChunkRegressionPolicy`.
        kl_weight: weight of the divergence of the latent in the loss.
        backbone_lr: learning rate of the backbone; None is that of the optimiser.
        normalization: mode by modality.

    Other arguments: see :class:`ACTNetwork`.

    Raises:
        UserError: a setting is out of range, or there are neither images nor a state of the world.
    """

    further_settings_of = ACTNetwork
    inference_settings: ClassVar[tuple[str, ...]] = (
        *ChunkRegressionPolicy.inference_settings,
        "backbone_weights",
    )
    weight_settings: ClassVar[Mapping[str, Any]] = {"backbone_weights": None}

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        *,
        chunk_size: int = 100,
        n_action_steps: int = 1,
        temporal_ensemble_coeff: float | None = 0.01,
        predict_every_n: int = 1,
        return_every_n: int = 1,
        kl_weight: float = 10.0,
        backbone_lr: float | None = None,
        normalization: Mapping[str, str] | None = None,
        **network: Any,
    ) -> None:
        super().__init__(
            shape_meta,
            chunk_size=chunk_size,
            n_obs_steps=1,
            n_action_steps=n_action_steps,
            temporal_ensemble_coeff=temporal_ensemble_coeff,
            predict_every_n=predict_every_n,
            return_every_n=return_every_n,
            normalization=normalization,
        )
        require(kl_weight >= 0, "policy.kl_weight", kl_weight, "use at least 0")
        fits = backbone_lr is None or backbone_lr > 0
        require(fits, "policy.backbone_lr", backbone_lr, "use more than 0, or null")
        self.kl_weight, self.backbone_lr = kl_weight, backbone_lr
        self.inputs = {
            name: keys
            for name, modality in _LOW_DIM_INPUTS.items()
            if (keys := self.shape_meta.keys_of(modality))
        }
        self.image_keys = self.shape_meta.keys_of("VISUAL")
        if not self.image_keys and "environment_state" not in self.inputs:
            raise UserError(
                f"shape_meta.obs has neither an image nor modality ENV, only "
                f"{', '.join(self.shape_meta.obs)}: ACT has nothing to see but the robot itself; "
                "add one of them"
            )
        sizes: dict[str, Any] = {
            f"{name}_dim": sum(self.shape_meta.obs[key].size for key in self.inputs.get(name, []))
            for name in _LOW_DIM_INPUTS
        }
        self.model = ACTNetwork(
            **sizes,
            n_cameras=len(self.image_keys),
            action_dim=self.shape_meta.action.size,
            chunk_size=chunk_size,
            **network,
        )

    # ------------------------------------------------------------------ training

    def compute_loss(self, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        """L1 error plus ``kl_weight`` times the divergence of the latent.

        The error is a mean over all actions of the chunks; those outside the episode count as 0, as
        in the original. In evaluation mode the latent is 0, as when acting, and has no divergence.
        """
        normalizer = self.normalizer.of(batch.get("embodiment"))
        target = normalizer["action"].normalize(batch["action"])
        is_pad = batch["action_is_pad"]
        recorded = (target, is_pad) if self.training else (None, None)
        predicted, latent = self.model(self._network_inputs(batch["obs"], normalizer), *recorded)
        error = F.l1_loss(predicted, target, reduction="none")
        l1 = error.masked_fill(is_pad[..., None], 0).mean()
        values: dict[str, float | Tensor] = {"l1": l1.detach()}
        if latent is None:
            return l1, values
        divergence = latent.divergence().mean()
        return l1 + self.kl_weight * divergence, {**values, "kl": divergence.detach()}

    def parameter_groups(self) -> Iterable[Any]:
        """All parameters that train; the backbone's apart if it has a learning rate of its own."""
        if self.backbone_lr is None or not self.image_keys:
            return super().parameter_groups()
        own = [p for p in self.model.backbone.parameters() if p.requires_grad]
        apart = set(own)
        rest = [p for p in self.parameters() if p.requires_grad and p not in apart]
        return [{"params": rest}, {"params": own, "lr": self.backbone_lr}]

    def _network_inputs(
        self, obs: Mapping[str, Tensor], normalizer: Normalizer
    ) -> dict[str, Tensor | list[Tensor]]:
        """Normalised inputs of the network, from raw observations (B, 1, ...)."""
        inputs: dict[str, Tensor | list[Tensor]] = {}
        for name, keys in self.inputs.items():
            states = [normalizer[key].normalize(flat_steps(obs[key][:, :1])) for key in keys]
            inputs[name] = torch.cat(states, dim=-1)[:, 0]
        if self.image_keys:
            inputs["images"] = [
                normalizer[key].normalize(obs[key][:, 0]) for key in self.image_keys
            ]
        return inputs

    # ------------------------------------------------------------------ inference

    def predict_chunk(self, obs: Mapping[str, Tensor], normalizer: Normalizer) -> Tensor:
        """See :class:`ChunkRegressionPolicy`."""
        return self.model(self._network_inputs(obs, normalizer))[0]

    def prepare_for_inference(self) -> None:
        """Fold batch norms into the weights; outputs stay the same."""
        fold_frozen_norm(self.model)
        self.requires_grad_(False)

    def compile_for_inference(self) -> None:
        """See :class:`BasePolicy`."""
        self.model.forward = compiled(self.model.forward, self.device)  # type: ignore[method-assign]
