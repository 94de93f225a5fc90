"""ACT without a latent: a chunk of actions from a sequence of observations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from diffusion_policy.model.act.sequence_network import ACTSequenceNetwork
from diffusion_policy.model.common.action_coordinates import build_coordinates, huber_error
from diffusion_policy.model.common.normalizer import Normalizer
from diffusion_policy.model.vision.feature_cache import FeatureCache
from diffusion_policy.model.vision.resnet import fold_frozen_norm
from diffusion_policy.policy.chunk_regression import ChunkRegressionPolicy
from diffusion_policy.policy.step_inputs import StepInputs
from diffusion_policy.spec.batch import Batch

_IMAGES_REMEMBERED = 1024
"""An image is seen at To steps in a row; room for 50 environments with 20 of them."""


class ACTSequencePolicy(ChunkRegressionPolicy):
    """Action chunking from To observations, for actions of any coordinates.

    Args:
        shape_meta: observations and action of the task.
        chunk_size: H, actions that are predicted from now on.
        n_obs_steps: To, the latest observations.
        n_action_steps, temporal_ensemble_coeff, predict_every_n, return_every_n: how the chunks are
            followed, see :class:`ChunkRegressionPolicy`.
        coordinates: in which actions are predicted and compared: ``cartesian``, ``spherical`` or
            ``spherical_full``, see ``model/common/action_coordinates.py``.
        magnitude_weights: whether large movements count more in the loss.
        use_state: whether low-dim observations are seen beside images.
        image_size: (height, width) that images are resized to; None leaves them.
        normalization: mode by modality.

    Other arguments: see :class:`ACTSequenceNetwork`.

    Raises:
        UserError: a setting is out of range, or spherical coordinates are asked for an action that
            has no three numbers.
    """

    further_settings_of = ACTSequenceNetwork
    inference_settings: ClassVar[tuple[str, ...]] = (
        *ChunkRegressionPolicy.inference_settings,
        "backbone_weights",
    )
    weight_settings: ClassVar[Mapping[str, Any]] = {"backbone_weights": None}

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        *,
        chunk_size: int = 20,
        n_obs_steps: int = 2,
        n_action_steps: int = 1,
        temporal_ensemble_coeff: float | None = None,
        predict_every_n: int = 1,
        return_every_n: int = 1,
        coordinates: str = "cartesian",
        magnitude_weights: bool = True,
        use_state: bool = True,
        image_size: Sequence[int] | None = None,
        normalization: Mapping[str, str] | None = None,
        **network: Any,
    ) -> None:
        super().__init__(
            shape_meta,
            chunk_size=chunk_size,
            n_obs_steps=n_obs_steps,
            n_action_steps=n_action_steps,
            temporal_ensemble_coeff=temporal_ensemble_coeff,
            predict_every_n=predict_every_n,
            return_every_n=return_every_n,
            normalization=normalization,
        )
        self.n_obs_steps, self.magnitude_weights = n_obs_steps, magnitude_weights
        self.coordinates = build_coordinates(coordinates, self.shape_meta.action.size)
        self.inputs = StepInputs(self.shape_meta, use_state=use_state, image_size=image_size)
        self.model = ACTSequenceNetwork(
            state_dim=self.inputs.state_dim,
            n_cameras=len(self.inputs.image_keys),
            action_dim=self.shape_meta.action.size,
            n_obs_steps=n_obs_steps,
            chunk_size=chunk_size,
            image_size=self.inputs.image_size,
            **network,
        )
        self.features = [
            FeatureCache(backbone, _IMAGES_REMEMBERED)
            for backbone in (self.model.images.backbones if self.inputs.image_keys else ())
        ]

    def compute_loss(self, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Mean Huber error over all actions of the chunks; those outside the episode count as 0."""
        normalizer = self.normalizer.of(batch.get("embodiment"))
        target = normalizer["action"].normalize(batch["action"])
        raw = self.model(*self.inputs(batch["obs"], normalizer, self.n_obs_steps))
        error = huber_error(self.coordinates, raw, target, magnitude_weights=self.magnitude_weights)
        return error.masked_fill(batch["action_is_pad"][..., None], 0).mean(), {}

    def reset(
        self, env_ids: Sequence[int] | None = None, seeds: Sequence[int] | None = None
    ) -> None:
        """Forget the chunks of these environments, or when None all chunks and images."""
        super().reset(env_ids)
        if env_ids is None:
            for cache in self.features:
                cache.clear()

    def predict_chunk(self, obs: Mapping[str, Tensor], normalizer: Normalizer) -> Tensor:
        """See :class:`ChunkRegressionPolicy`."""
        raw = self.model(*self.inputs(obs, normalizer, self.n_obs_steps))
        return self.coordinates.to_action(self.coordinates.values(raw))

    def prepare_for_inference(self) -> None:
        """Fold batch norms into the weights; outputs stay the same."""
        fold_frozen_norm(self.model)
        self.requires_grad_(False)
