"""What policies share that predict a chunk of actions from now on with one pass of a network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from diffusion_policy.model.common.normalizer import Normalizer
from diffusion_policy.policy.chunk_following import (
    ChunkFollower,
    ChunkPolicy,
    environments,
    oldest_first_weights,
    rows_of,
)
from diffusion_policy.spec.window import Window
from diffusion_policy.util.errors import UserError, require

if TYPE_CHECKING:
    from diffusion_policy.dataset.base_dataset import BaseDataset


class ChunkRegressionPolicy(ChunkPolicy):
    """Predicts H actions from now on, and executes them as :class:`ChunkFollower` says.

    Time, in control steps relative to now, for To = 2, H = 20, Ta = 8::

        observed    -1  0
        predicted       0  1  2 ...  7  8 ... 19
        executed        0  1  2 ...  7

    Subclasses build the network and say what :meth:`predict_chunk` is.

    Args:
        shape_meta: observations and action of the task.
        chunk_size: H.
        n_obs_steps: To.
        n_action_steps: Ta, actions of a chunk that are executed before the next prediction.
        temporal_ensemble_coeff: average what all chunks say of the same step, with weights
            exp(-coeff * i), where i = 0 is the oldest chunk; None follows the newest chunk alone.
        predict_every_n, return_every_n: see :class:`ChunkFollower`.
        normalization: mode by modality.

    Raises:
        UserError: a setting is out of range, or more actions are executed than a chunk holds.
    """

    weights_setting: ClassVar[str] = "temporal_ensemble_coeff"
    inference_settings: ClassVar[tuple[str, ...]] = (
        "temporal_ensemble_coeff",
        "n_action_steps",
        "predict_every_n",
        "return_every_n",
    )

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        *,
        chunk_size: int,
        n_obs_steps: int,
        n_action_steps: int,
        temporal_ensemble_coeff: float | None,
        predict_every_n: int,
        return_every_n: int,
        normalization: Mapping[str, str] | None,
    ) -> None:
        super().__init__(shape_meta, normalization)
        for name, value in (("chunk_size", chunk_size), ("n_obs_steps", n_obs_steps)):
            _require_count(name, value)
        _require_count("n_action_steps", n_action_steps, chunk_size, "policy.chunk_size")
        self.chunk_size, self.n_action_steps = chunk_size, n_action_steps
        self.window = Window(
            obs_offsets=tuple(range(1 - n_obs_steps, 1)), action_offsets=tuple(range(chunk_size))
        )
        self.follower = ChunkFollower(
            chunk_size,
            oldest_first_weights(temporal_ensemble_coeff),
            first_chunk_fills=False,
            n_action_steps=n_action_steps,
            predict_every_n=predict_every_n,
            return_every_n=return_every_n,
        )

    @abstractmethod
    def predict_chunk(self, obs: Mapping[str, Tensor], normalizer: Normalizer) -> Tensor:
        """Normalised actions (B, H, Da) for raw observations {key: (B, To, ...)}."""

    def fit(self, dataset: BaseDataset) -> None:
        """Check that there is an episode as long as a chunk.

        Raises:
            UserError: there is none, so the last actions of a chunk would never be learned.
        """
        longest = max((len(samples) for samples in dataset.episode_samples()), default=None)
        if longest is not None and longest < self.chunk_size:
            raise UserError(
                f"policy.chunk_size is {self.chunk_size}, but the longest training episode has "
                f"{longest} steps, and the actions beyond would never be learned; use at most "
                f"{longest}"
            )

    @torch.no_grad()
    def predict_action(
        self, obs: dict[str, Any], env_ids: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """The plan from now on; see :class:`BasePolicy`."""
        obs = self.observed(obs)
        normalizer = self.normalizer.of(self.embodiment)
        ids = environments(obs, env_ids)
        due = self.follower.due(ids)
        if due.any():
            now = rows_of(obs, due)
            self.follower.take(ids[due], self.predict_chunk(now, normalizer))
        predicted = normalizer["action"].unnormalize(self.follower.follow(ids))
        return {"action": predicted[:, : self.n_action_steps], "action_pred": predicted}


def _require_count(name: str, value: int, most: int | None = None, of: str = "") -> None:
    # Not isinstance: True is an int.
    fits = type(value) is int and value >= 1 and (most is None or value <= most)
    remedy = "use a whole number from 1" + ("" if most is None else f" to {of} ({most})")
    require(fits, f"policy.{name}", value, remedy)
