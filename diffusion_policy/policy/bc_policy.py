"""Visuomotor behavioural cloning: one action from the present observation, or a memory of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffusion_policy.model.bc.bc_network import BCNetwork
from diffusion_policy.model.common.action_coordinates import build_coordinates, huber_error
from diffusion_policy.model.vision.resnet import fold_frozen_norm
from diffusion_policy.policy.base_policy import BasePolicy, Batch
from diffusion_policy.policy.step_inputs import StepInputs
from diffusion_policy.spec.window import Window
from diffusion_policy.util.errors import require


class VisuomotorBCPolicy(BasePolicy):
    """Predicts the action of now.

    With a GRU, samples are sequences of L steps, all of which are learned from::

        observed     0  1  2 ... L-1
        predicted    0  1  2 ... L-1

    The memory of each environment begins at the start of its episode.

    Args:
        shape_meta: observations and action of the task.
        sequence_length: L, steps of a training sample; 1 without a GRU.
        coordinates: in which actions are predicted and compared: ``cartesian``, ``spherical`` or
            ``spherical_full``, see ``model/common/action_coordinates.py``.
        magnitude_weights: whether large movements count more in the loss.
        use_state: whether low-dim observations are seen beside images.
        image_size: (height, width) that images are resized to; None leaves them.
        use_gru: see :class:`BCNetwork`.
        normalization: mode by modality.

    Other arguments: see :class:`BCNetwork`.

    Raises:
        UserError: a setting is unknown, spherical coordinates are asked for an action that has no
            three numbers, or a GRU would train on single steps.
    """

    further_settings_of = BCNetwork
    inference_settings: ClassVar[tuple[str, ...]] = ("backbone_weights",)
    weight_settings: ClassVar[Mapping[str, Any]] = {"backbone_weights": None}

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        *,
        sequence_length: int = 1,
        coordinates: str = "cartesian",
        magnitude_weights: bool = True,
        use_state: bool = True,
        image_size: Sequence[int] | None = None,
        use_gru: bool = False,
        normalization: Mapping[str, str] | None = None,
        **network: Any,
    ) -> None:
        super().__init__(shape_meta, normalization)
        _check_sequence(sequence_length, use_gru)
        # The steps after the first are its future, so acting needs the present one alone.
        later = tuple(range(1, sequence_length))
        self.window = Window((0,), (0, *later), future_obs_offsets=later)
        self.sequence_length, self.magnitude_weights = sequence_length, magnitude_weights
        self.coordinates = build_coordinates(coordinates, self.shape_meta.action.size)
        self.inputs = StepInputs(self.shape_meta, use_state=use_state, image_size=image_size)
        self.model = BCNetwork(
            state_dim=self.inputs.state_dim,
            n_cameras=len(self.inputs.image_keys),
            action_dim=self.shape_meta.action.size,
            image_size=self.inputs.image_size,
            use_gru=use_gru,
            **network,
        )
        self.reset()

    @property
    def n_actions_ahead(self) -> int:
        """See :class:`BasePolicy`."""
        return 1

    @property
    def action_pred_offsets(self) -> tuple[int, ...]:
        """See :class:`BasePolicy`."""
        return (0,)

    def compute_loss(self, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Mean Huber error over all steps; those outside the episode count as 0."""
        normalizer = self.normalizer.of(batch.get("embodiment"))
        target = normalizer["action"].normalize(batch["action"])
        raw, _ = self.model(*self.inputs(batch["obs"], normalizer, self.sequence_length))
        error = huber_error(self.coordinates, raw, target, magnitude_weights=self.magnitude_weights)
        return error.masked_fill(batch["action_is_pad"][..., None], 0).mean(), {}

    def reset(
        self, env_ids: Sequence[int] | None = None, seeds: Sequence[int] | None = None
    ) -> None:
        """Forget what the GRU remembers of these environments, or of all when None."""
        if env_ids is None:
            self._memory: dict[int, Tensor] = {}
            return
        for env_id in env_ids:
            self._memory.pop(env_id, None)

    @torch.no_grad()
    def predict_action(
        self, obs: dict[str, Any], env_ids: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """The action of now; see :class:`BasePolicy`."""
        obs = self.observed(obs)
        normalizer = self.normalizer.of(self.embodiment)
        steps = self.inputs(obs, normalizer, n_times=1)
        n_rows = len(next(iter(obs.values())))
        ids = list(range(n_rows)) if env_ids is None else list(env_ids)
        raw, memory = self.model(*steps, self._recalled(ids))
        if memory is not None:
            self._memory.update(zip(ids, memory.float(), strict=True))
        action = self.coordinates.to_action(self.coordinates.values(raw))
        predicted = normalizer["action"].unnormalize(action)
        return {"action": predicted, "action_pred": predicted}

    def _recalled(self, ids: Sequence[int]) -> Tensor | None:
        """(B, H) what the GRU remembers of these environments; None without a GRU."""
        if self.model.gru is None:
            return None
        nothing = torch.zeros(self.model.gru.hidden_size, device=self.device)
        return torch.stack([self._memory.get(env_id, nothing) for env_id in ids])

    def prepare_for_inference(self) -> None:
        """Fold batch norms into the weights; outputs stay the same."""
        fold_frozen_norm(self.model)
        self.requires_grad_(False)


def _check_sequence(length: int, use_gru: bool) -> None:
    # Not isinstance: True is an int.
    fits = type(length) is int and length >= 1
    require(fits, "policy.sequence_length", length, "use a whole number from 1")
    remedy = (
        "use at least 2, such as 16, with policy.use_gru=true: a GRU learns from steps in their "
        "order, and samples of one step are shuffled"
    )
    require(length > 1 or not use_gru, "policy.sequence_length", length, remedy)
    remedy = "use 1 without policy.use_gru=true, since nothing else remembers earlier steps"
    require(length == 1 or use_gru, "policy.sequence_length", length, remedy)
