"""The contract of every policy: raw observations in, raw actions out.

Legend of shapes, here and in every policy: B batch, To observation times, Ta executed actions,
T predicted actions, Da numbers of an action.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.spec.batch import Batch
from diffusion_policy.spec.observation import (
    checked_text,
    require_finite,
    require_keys,
    require_values,
)
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.spec.window import Window
from diffusion_policy.util.errors import UserError, one_line

if TYPE_CHECKING:
    from diffusion_policy.dataset.base_dataset import BaseDataset


class BasePolicy(nn.Module, ABC):
    """A policy maps observations to a chunk of actions, and learns from batches of both.

    Subclasses set ``window`` and ``n_action_steps`` before use.

    Attributes:
        shape_meta: what the policy observes and commands.
        window: the time steps that a training sample and an observation hold.
        n_action_steps: Ta, control steps from one call of :meth:`predict_action` to the next.
        normalization: normalization mode by modality, see :data:`NORMALIZATIONS`.
        normalizer: travels in the state_dict, so that a checkpoint deploys alone.
        embodiment: index of the robot that :meth:`predict_action` acts for, into the normaliser's
            ``embodiment_names``; or one index (B,) per row.
        obs_types: types of observations that the policy can read.
        inference_settings: constructor arguments that change neither the weights nor what is
            learned. They may be changed at inference and when a run is resumed.
        weight_settings: constructor arguments about weights to start from, and the values that
            replace them when a checkpoint brings the weights.
        debug_settings: constructor arguments, and their values, of a small form of the policy for
            ``training.debug``.
        further_settings_of: class that takes the constructor's ``**kwargs``, so that a misspelt
            setting is found when a run starts; only for a constructor that passes them on.

    Parts of a policy that a config names (``_target_``) may declare the same three kinds of
    settings.
    """

    obs_types: ClassVar[tuple[str, ...]] = ("rgb", "low_dim")
    inference_settings: ClassVar[tuple[str, ...]] = ()
    weight_settings: ClassVar[Mapping[str, Any]] = {}
    debug_settings: ClassVar[Mapping[str, Any]] = {}
    window: Window
    n_action_steps: int = 1
    embodiment: int | Tensor = 0

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
        """Times of the To observations that :meth:`predict_action` reads, relative to now."""
        return self.window.obs_offsets

    @property
    def n_actions_ahead(self) -> int:
        """Rows of ``action_pred`` from now on that can be executed, at every call.

        A caller with a latency of n control steps executes rows n to n + Ta - 1 of them.
        """
        return self.window.action_offsets[-1] + 1

    @property
    def action_pred_offsets(self) -> tuple[int, ...]:
        """Times that the rows of ``action_pred`` are predicted for, in recorded steps from now.

        All of them are in ``window.action_offsets``.
        """
        return self.window.action_offsets

    @property
    def mixes_actions(self) -> tuple[str, ...]:
        """Settings through which a prediction depends on actions of earlier calls; () is none.

        Such actions must mean the same at both calls, so they cannot be relative to what the robot
        observes.
        """
        return ()

    @property
    def skips_actions(self) -> tuple[str, ...]:
        """Settings through which actions of a chunk are left out; () is none.

        Then an action cannot be a change from the one before it.
        """
        return ()

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def set_normalizer(self, normalizer: LinearNormalizer) -> None:
        """Take over a normaliser fitted on the training episodes."""
        self.normalizer.load_state_dict(normalizer.state_dict())
        self.normalizer.to(self.device)

    @abstractmethod
    def compute_loss(self, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Training loss of a batch on the policy's device.

        Random numbers for rows come from :mod:`diffusion_policy.model.common.batch_random`, so that
        processes that share a batch train as one.

        Args:
            batch: see :data:`~diffusion_policy.spec.batch.Batch`; left unchanged. ``obs`` is at
                ``window.sample_obs_offsets``. Tensors are on the device; text is a list of B str.

        Returns:
            The scalar loss, a mean over rows; and further values to log by name, floats or scalar
            tensors, which are means over rows, too.
        """

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        """:meth:`compute_loss`, for wrappers that distribute a module's call."""
        return self.compute_loss(batch)

    @abstractmethod
    def predict_action(
        self, obs: dict[str, Any], env_ids: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Actions for a batch of observations.

        Args:
            obs: {key: (B, To, ...)} at ``obs_offsets``; raw units, images uint8, text a list of B
                str. Observations after the first To are ignored. :meth:`observed` checks it.
            env_ids: the environment of each row, for policies that remember; None is 0..B-1.

        Returns:
            ``action`` (B, Ta, Da) to execute now, and ``action_pred`` (B, T, Da), row k at
            ``action_pred_offsets[k]``; raw units. ``action`` is the part of ``action_pred`` from
            now on.
        """

    def observed(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        """What :meth:`predict_action` was given, checked, in tensors on the policy's device.

        Args:
            obs: as :meth:`predict_action` takes it; numpy arrays become tensors.

        Raises:
            UserError: an observation is missing, has the wrong shape or dtype, or is not finite.
        """
        require_keys(self.shape_meta, obs)
        n_times, n_rows = len(self.obs_offsets), _n_rows(obs[next(iter(self.shape_meta.obs))])
        observed: dict[str, Any] = {}
        finite: dict[str, Tensor] = {}
        for key, field in self.shape_meta.obs.items():
            if field.type == "text":
                observed[key] = checked_text(key, obs[key], (n_rows,))
                continue
            x = _tensor(key, obs[key], self.device)
            longer = x.shape[1:2] if x.ndim > 1 and x.shape[1] > n_times else (n_times,)
            require_values(key, field, x.shape, x.dtype, (n_rows, *longer))
            if x.is_floating_point():
                finite[key] = x.isfinite().all()
            observed[key] = x.float() if x.dtype == torch.float64 else x
        if finite and not torch.stack(list(finite.values())).all():  # one wait for the device
            for key, is_finite in finite.items():
                require_finite(key, self.shape_meta.obs[key], bool(is_finite))
        return observed

    def reset(
        self, env_ids: Sequence[int] | None = None, seeds: Sequence[int] | None = None
    ) -> None:
        """Forget the past of these environments, or of all when None.

        Args:
            seeds: one for each of ``env_ids``. A policy that draws random numbers draws those of
                an environment from its seed, so that no episode depends on its neighbours.
        """

    def after_update(self) -> None:
        """Called after every optimiser step, for schedules that belong to the policy."""

    def fit(self, dataset: BaseDataset) -> None:
        """Fit what is not learned by gradient, before training; default: nothing."""

    def prepare_for_inference(self) -> None:
        """Make predictions cheaper without changing them. The policy cannot train any more."""

    def compile_for_inference(self) -> None:
        """Compile the network for calls with as many rows as the next one; default: nothing.

        That call takes half a minute, later ones are faster than before. A call with another number
        of rows compiles again. Weights must not change from now on.
        """

    def parameter_groups(self) -> Iterable[Any]:
        """Parameters for the optimiser: those that train."""
        return [p for p in self.parameters() if p.requires_grad]

    def get_optimizer(self, config: Mapping[str, Any]) -> torch.optim.Optimizer:
        """The optimiser that ``config`` names (``_target_`` and its arguments)."""
        import hydra

        # Positional, since Hydra would turn a keyword's parameters into a config.
        return hydra.utils.instantiate(config, self.parameter_groups(), _convert_="all")


def _n_rows(value: Any) -> int:
    try:
        return len(value)
    except TypeError:  # a scalar has the wrong shape for any number of rows
        return 1


def _tensor(key: str, value: Any, device: torch.device) -> Tensor:
    try:
        return torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"observation {key!r} makes no tensor ({one_line(error)}); give numbers"
        ) from None
