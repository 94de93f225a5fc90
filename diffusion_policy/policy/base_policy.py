"""The contract of every policy: raw observations in, raw actions out.

Legend of shapes, here and in every policy: B batch, To observation times, Ta executed actions,
T predicted actions, Da numbers of an action, C x H x W image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.spec.batch import Batch
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.spec.window import Window
from diffusion_policy.util.errors import UserError

if TYPE_CHECKING:
    from diffusion_policy.dataset.window_dataset import WindowDataset


class BasePolicy(nn.Module, ABC):
    """A policy maps observations to a chunk of actions, and learns from batches of both.

    Subclasses set ``window`` and ``n_action_steps`` before use.

    Attributes:
        shape_meta: what the task observes and commands.
        window: the time steps that a training sample and an observation hold.
        n_action_steps: Ta, actions that a caller executes before it asks again.
        normalization: normalisation mode by modality: MIN_MAX, MEAN_STD or IDENTITY.
        normalizer: travels in the state_dict, so that a checkpoint deploys alone.
        obs_types: types of observations that the policy can read.
        embodiment: index of the robot that :meth:`predict_action` acts for, into the normaliser's
            ``embodiment_names``.
    """

    window: Window
    n_action_steps: int = 1
    obs_types: ClassVar[tuple[str, ...]] = ("rgb", "low_dim")
    embodiment: int = 0

    def __init__(
        self,
        shape_meta: Mapping[str, Any] | TaskSpec,
        normalization: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.shape_meta = TaskSpec.parse(shape_meta)
        for key, field in self.shape_meta.obs.items():
            if field.type not in self.obs_types:
                raise UserError(
                    f"shape_meta.obs.{key}.type is {field.type!r}; {type(self).__name__} reads "
                    f"{', '.join(self.obs_types)}: remove the observation, or choose another policy"
                )
        self.normalization = dict(normalization or {})
        self.normalizer = LinearNormalizer()

    @property
    def obs_offsets(self) -> tuple[int, ...]:
        """Times of the To observations that :meth:`predict_action` wants, relative to now."""
        return self.window.obs_offsets

    @property
    def n_actions_ahead(self) -> int:
        """Rows of ``action_pred`` from now on; a caller with latency executes later ones."""
        return self.window.action_offsets[-1] + 1

    @property
    def action_pred_offsets(self) -> tuple[int, ...]:
        """Which of ``window.action_offsets`` the rows of ``action_pred`` are predicted for."""
        return self.window.action_offsets

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def set_normalizer(self, normalizer: LinearNormalizer) -> None:
        """Take over a normaliser fitted on the training episodes."""
        self.normalizer.load_state_dict(normalizer.state_dict())
        self.normalizer.to(self.device)

    @abstractmethod
    def compute_loss(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Training loss of a batch on the policy's device.

        Args:
            batch: ``obs`` {key: (B, To, ...)} at ``window.sample_obs_offsets``, ``action``
                (B, T, Da) and ``action_is_pad`` (B, T) bool; raw units, images uint8. Left
                unchanged.

        Returns:
            The scalar loss, a mean over rows, and further values to log. Random numbers for rows
            come from :mod:`diffusion_policy.model.common.batch_random`, so that processes which
            share a batch train as one.
        """

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """:meth:`compute_loss`, for wrappers that distribute a module's call."""
        return self.compute_loss(batch)

    @abstractmethod
    def predict_action(
        self, obs: dict[str, Tensor], env_ids: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Actions for a batch of observations.

        Args:
            obs: {key: (B, To, ...)} at ``obs_offsets``; raw units, images uint8. Later
                observations behind them are left aside.
            env_ids: which environment each row belongs to, for policies that remember; rows are
                environments 0..B-1 when None.

        Returns:
            ``action`` (B, Ta, Da) to execute now, and ``action_pred`` (B, T, Da), row k at
            ``action_pred_offsets[k]``; raw units.
        """

    def reset(
        self, env_ids: Sequence[int] | None = None, seeds: Sequence[int] | None = None
    ) -> None:
        """Forget the past of these environments, or of all when None.

        Args:
            seeds: of the episodes that start, one for each of ``env_ids``; policies that draw
                random numbers begin there, so that no episode depends on its neighbours.
        """

    def after_update(self) -> None:
        """Called after every optimiser step, for schedules that belong to the policy."""

    def fit(self, dataset: WindowDataset) -> None:
        """Fit what is not learned by gradient, before training; default: nothing."""

    def prepare_for_inference(self) -> None:
        """Make prediction cheaper where that changes no output; training ends here."""

    def compile_for_inference(self) -> None:
        """Compile the network for calls with as many rows as the next; default: nothing.

        That call takes half a minute, later ones less time than before. A call with another number
        of rows is compiled anew. Weights must not change from now on.
        """

    def parameter_groups(self) -> Iterable[Any]:
        """Parameters for the optimiser: those that train."""
        return [p for p in self.parameters() if p.requires_grad]

    def get_optimizer(self, config: Mapping[str, Any]) -> torch.optim.Optimizer:
        """The optimiser that ``config`` names (``_target_`` and its arguments)."""
        import hydra

        # Positional, since Hydra would turn a keyword's parameters into a config.
        return hydra.utils.instantiate(config, self.parameter_groups(), _convert_="all")
