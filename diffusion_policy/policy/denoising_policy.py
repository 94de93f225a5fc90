"""What all policies that denoise a trajectory of actions share, whatever their network.

Source: Chi et al., Visuomotor Policy Learning via Action Diffusion (2023).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffusion_policy.model.common.inference import compiled
from diffusion_policy.model.common.normalizer import Normalizer
from diffusion_policy.model.diffusion.process import Process
from diffusion_policy.model.vision.obs_encoder import ObsEncoder
from diffusion_policy.policy.base_policy import Batch
from diffusion_policy.policy.chunk_following import (
    ChunkFollower,
    ChunkPolicy,
    environments,
    geometric_weights,
    rows_of,
)
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.spec.window import Window
from diffusion_policy.util.errors import require
from diffusion_policy.util.pytorch_util import flat_steps, split_rows

_MOST_ENCODED = 1024
"""Rows x times whose conditions are encoded together, so that weights are read once for all."""


class DenoisingPolicy(ChunkPolicy):
    """Denoises a trajectory of T actions, given To observations; executes Ta of them.

    Time, in control steps relative to now, for To = 2, T = 16, Ta = 8::

        row of the trajectory    0   1   2  ...   8   9  ...  15
        time                    -1   0   1  ...   7   8  ...  14
        observed                 x   x
        executed                     x   x  ...   x

    Subclasses build the network and its condition: see :meth:`denoise`, :meth:`encode` and
    :meth:`decode`.

    Args:
        shape_meta: observations and action of the task.
        horizon: T.
        n_obs_steps: To.
        n_action_steps: Ta.
        noise_scheduler: how noise becomes a trajectory.
        obs_encoder: makes the encoder of observations from a shape_meta.
        conditioning: how the network is told the observations: one of the class's
            ``CONDITIONINGS``. ``inpaint`` denoises actions and observations together, with the
            first To observations given.
        pred_action_steps_only: the trajectory is the executed actions alone.
        past_action_visible: actions before now are given, too, once they are known. They are those
            that this policy returned as ``action``, so the caller must execute exactly these.
        alpha: a chunk that is k steps old has weight ``alpha ** k`` in the mean of chunks that is
            executed (temporal ensembling); 0 executes the newest chunk alone.
        predict_every_n, return_every_n: see :class:`ChunkFollower`.
        obs_encoder_weight_decay: weight decay of the encoder; None is that of the optimiser.
        normalization: mode by modality.

    Raises:
        UserError: a setting is unknown, or the horizons do not fit each other.
    """

    model: nn.Module
    CONDITIONINGS: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        *,
        noise_scheduler: Process,
        obs_encoder: Callable[[Mapping[str, Any]], ObsEncoder],
        horizon: int = 16,
        n_obs_steps: int = 2,
        n_action_steps: int = 8,
        conditioning: str = "global",
        pred_action_steps_only: bool = False,
        past_action_visible: bool = False,
        alpha: float = 0.0,
        predict_every_n: int = 1,
        return_every_n: int = 1,
        obs_encoder_weight_decay: float | None = None,
        normalization: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(shape_meta, normalization)
        _check_steps(horizon, n_obs_steps, n_action_steps)
        _check_conditioning(
            conditioning, self.CONDITIONINGS, pred_action_steps_only, past_action_visible
        )
        self.n_obs_steps = n_obs_steps
        self.n_action_steps = n_action_steps
        self.conditioning = conditioning
        self.process = noise_scheduler
        self.obs_encoder_weight_decay = obs_encoder_weight_decay
        self.n_past_actions = n_obs_steps - 1 if past_action_visible else 0

        first, last = (1 - n_obs_steps, horizon - n_obs_steps)
        if pred_action_steps_only:
            first, last = 0, n_action_steps - 1
        self.window = Window(
            obs_offsets=tuple(range(1 - n_obs_steps, 1)),
            action_offsets=tuple(range(first, last + 1)),
            future_obs_offsets=tuple(range(1, last + 1)) if conditioning == "inpaint" else (),
            pad_after=n_action_steps - 1,
        )
        self.horizon = len(self.window.action_offsets)
        self._first_executed = -first
        self.follower = ChunkFollower(
            last + 1,
            geometric_weights(alpha),
            n_action_steps=n_action_steps,
            predict_every_n=predict_every_n,
            return_every_n=return_every_n,
        )

        _check_normalization(self.shape_meta, self.normalization, conditioning, self.process)
        self.obs_encoder = obs_encoder(shape_meta)
        require(
            conditioning != "inpaint" or not list(self.obs_encoder.parameters()),
            "policy.conditioning",
            conditioning,
            "use global with this encoder: features that are learned cannot be denoised",
        )
        self.action_dim = self.shape_meta.action.shape[0]
        self.reset()

    # ------------------------------------------------------------------ for subclasses

    @property
    def trajectory_dim(self) -> int:
        """D, numbers of a step of the trajectory."""
        inpaint = self.conditioning == "inpaint"
        return self.action_dim + (self.obs_encoder.output_dim if inpaint else 0)

    @abstractmethod
    def denoise(self, x: Tensor, time: Tensor, features: Tensor) -> Tensor:
        """Output of the network (B, T, D) for a noisy trajectory ``x`` (B, T, D).

        Args:
            time: (B,) noise levels.
            features: (B, To, F) of the observations.
        """

    @abstractmethod
    def encode(self, time: Tensor, features: Tensor) -> Any:
        """The part of :meth:`denoise` that does not depend on ``x``, for :meth:`decode`.

        Returns:
            Tensors of B rows, see :func:`split_rows`.
        """

    @abstractmethod
    def decode(self, x: Tensor, encoded: Any) -> Tensor:
        """The rest of :meth:`denoise`."""

    def _prepare(
        self, times: Sequence[Tensor], features: Tensor
    ) -> Iterator[Callable[[Tensor], Tensor]]:
        """For each of the scalar ``times``, the network as a function of the trajectory alone."""
        n_rows = len(features)
        n_together = max(1, _MOST_ENCODED // n_rows)
        for start in range(0, len(times), n_together):
            group = torch.stack(list(times[start : start + n_together]))
            repeated = features.repeat(len(group), 1, 1)
            encoded = self.encode(group.repeat_interleave(n_rows), repeated)
            for part in split_rows(encoded, len(group)):
                yield partial(self.decode, encoded=part)

    # ------------------------------------------------------------------ training

    def compute_loss(self, batch: Batch) -> tuple[Tensor, dict[str, float | Tensor]]:
        """MSE of the network output; known entries are masked out."""
        normalizer = self.normalizer.of(batch.get("embodiment"))
        features = self._features(batch["obs"], normalizer)
        clean = normalizer["action"].normalize(batch["action"])
        known = torch.zeros_like(clean, dtype=torch.bool)
        # Before the start of an episode there was no action to see.
        past = slice(0, self.n_past_actions)
        known[:, past] = ~batch["action_is_pad"][:, past, None]
        if self.conditioning == "inpaint":
            clean = torch.cat([clean, features], dim=-1)
            known = torch.cat([known, self._is_observed(features)], dim=-1)
        observed = features[:, : self.n_obs_steps]
        loss = self.process.loss(
            lambda x, time: self.denoise(x, time, observed),
            clean,
            known if self._something_is_known else None,
        )
        return loss, {}

    def _features(self, obs: Mapping[str, Tensor], normalizer: Normalizer) -> Tensor:
        """Features (B, times, F) of raw observations (B, times, ...)."""
        normalized = {}
        for key, field in self.shape_meta.obs.items():
            if field.type == "rgb":
                normalized[key] = normalizer[key].normalize(obs[key].flatten(0, 1))
                normalized[key] = normalized[key] * 2 - 1  # from 0..1
            else:
                steps = flat_steps(obs[key]).flatten(0, 1)
                normalized[key] = normalizer[key].normalize(steps)
        return self.obs_encoder(normalized).unflatten(0, (len(obs[key]), -1))

    def _is_observed(self, features: Tensor) -> Tensor:
        steps = torch.arange(features.shape[1], device=features.device)
        return (steps < self.n_obs_steps)[:, None].expand_as(features)

    @property
    def _something_is_known(self) -> bool:
        return self.conditioning == "inpaint" or self.n_past_actions > 0

    def parameter_groups(self) -> Iterable[Any]:
        """The network's groups and the encoder's."""
        encoder = [p for p in self.obs_encoder.parameters() if p.requires_grad]
        groups = list(self.network_parameter_groups())
        if encoder:
            decay = self.obs_encoder_weight_decay
            groups.append({"params": encoder} | ({} if decay is None else {"weight_decay": decay}))
        return groups

    def network_parameter_groups(self) -> Iterable[dict[str, Any]]:
        """Groups of the network's parameters; default: one."""
        return [{"params": [p for p in self.model.parameters() if p.requires_grad]}]

    # ------------------------------------------------------------------ inference

    @property
    def mixes_actions(self) -> tuple[str, ...]:
        """See :class:`BasePolicy`."""
        visible = ("past_action_visible",) if self.n_past_actions else ()
        return super().mixes_actions + visible

    def reset(
        self, env_ids: Sequence[int] | None = None, seeds: Sequence[int] | None = None
    ) -> None:
        """Start episodes: forget chunks and past actions, and draw noise from ``seeds`` on.

        Args:
            seeds: one for each of ``env_ids``; None takes the number of the environment.
        """
        super().reset(env_ids)
        if env_ids is None:
            self._generators: dict[int, torch.Generator] = {}
            self._past: dict[int, Tensor] = {}
            return
        for env_id, seed in zip(env_ids, seeds or env_ids, strict=True):
            self._generators[env_id] = torch.Generator().manual_seed(seed)
            self._past.pop(env_id, None)

    @torch.no_grad()
    def predict_action(
        self,
        obs: dict[str, Tensor],
        env_ids: Sequence[int] | None = None,
        generators: Sequence[torch.Generator] | None = None,
    ) -> dict[str, Tensor]:
        """Sampled actions; see :class:`BasePolicy`.

        Args:
            generators: one per row, on the CPU, in place of those that :meth:`reset` started. A
                new chunk depends on its observation and its generator alone.

        Returns:
            ``action`` and ``action_pred``; with ``inpaint`` also ``obs_pred`` {key: (B, T, ...)},
            the observations that go with the predicted actions, in raw units.
        """
        obs = self.observed(obs)
        normalizer = self.normalizer.of(self.embodiment)
        ids = environments(obs, env_ids)
        due = self.follower.due(ids)
        if due.any():
            every = generators or [self._generator(env_id) for env_id in ids.tolist()]
            own = [generator for generator, is_due in zip(every, due, strict=True) if is_due]
            self.follower.take(
                ids[due], self._sample(rows_of(obs, due), ids[due].tolist(), own, normalizer)
            )
        trajectory = self.follower.follow(ids)
        executed = slice(self._first_executed, self._first_executed + self.n_action_steps)
        actions = trajectory[..., : self.action_dim]
        self._remember(ids.tolist(), actions[:, executed])
        predicted = normalizer["action"].unnormalize(actions)
        result: dict[str, Any] = {"action": predicted[:, executed], "action_pred": predicted}
        if self.conditioning == "inpaint":
            result["obs_pred"] = self._decode(trajectory[..., self.action_dim :], normalizer)
        return result

    def _sample(
        self,
        obs: Mapping[str, Tensor],
        ids: list[int],
        generators: Sequence[torch.Generator],
        normalizer: Normalizer,
    ) -> Tensor:
        """Normalised trajectories (B, T, D) of these environments."""
        features = self._features({k: v[:, : self.n_obs_steps] for k, v in obs.items()}, normalizer)
        clean, known = self._given(features, ids)
        return self.process.sample(
            lambda times: self._prepare(times, features),
            (len(ids), self.horizon, self.trajectory_dim),
            generators,
            self.device,
            clean=clean,
            known=known,
        )

    def compile_for_inference(self) -> None:
        """See :class:`BasePolicy`; compiles :meth:`decode`, which runs in every denoising step."""
        self.decode = compiled(self.decode, self.device)  # type: ignore[method-assign]

    def _generator(self, env_id: int) -> torch.Generator:
        if env_id not in self._generators:
            self._generators[env_id] = torch.Generator().manual_seed(env_id)
        return self._generators[env_id]

    def _given(self, features: Tensor, ids: list[int]) -> tuple[Tensor | None, Tensor | None]:
        """Known values of the trajectory (B, T, D), and where they are (B, T, D) bool."""
        if not self._something_is_known:
            return None, None
        shape = (len(ids), self.horizon, self.trajectory_dim)
        clean = torch.zeros(shape, device=features.device)
        known = torch.zeros(shape, dtype=torch.bool, device=features.device)
        if self.conditioning == "inpaint":
            clean[:, : self.n_obs_steps, self.action_dim :] = features
            known[:, : self.n_obs_steps, self.action_dim :] = True
        for row, env_id in enumerate(ids):
            if (past := self._past.get(env_id)) is not None:
                steps = slice(self.n_past_actions - len(past), self.n_past_actions)
                clean[row, steps, : self.action_dim] = past
                known[row, steps, : self.action_dim] = True
        return clean, known

    def _remember(self, ids: list[int], executed: Tensor) -> None:
        if self.n_past_actions == 0:
            return
        for env_id, actions in zip(ids, executed, strict=True):
            before = self._past.get(env_id)
            every = actions if before is None else torch.cat([before, actions])
            self._past[env_id] = every[-self.n_past_actions :]

    def _decode(self, features: Tensor, normalizer: Normalizer) -> dict[str, Tensor]:
        """Raw observations (B, T, ...) from concatenated normalised ones (B, T, F)."""
        fields = self.shape_meta.obs
        parts = features.split([field.size for field in fields.values()], dim=-1)
        return {
            key: normalizer[key].unnormalize(part).view(*part.shape[:-1], *field.shape)
            for (key, field), part in zip(fields.items(), parts, strict=True)
        }


def _check_steps(horizon: int, n_obs_steps: int, n_action_steps: int) -> None:
    for name, value in (
        ("horizon", horizon),
        ("n_obs_steps", n_obs_steps),
        ("n_action_steps", n_action_steps),
    ):
        require(value >= 1, f"policy.{name}", value, "use at least 1")
    require(
        n_obs_steps <= horizon, "policy.n_obs_steps", n_obs_steps, f"use 1..horizon ({horizon})"
    )
    most = horizon - n_obs_steps + 1
    require(
        n_action_steps <= most,
        "policy.n_action_steps",
        n_action_steps,
        f"use 1..horizon - n_obs_steps + 1 ({most}), as execution starts at the last observation",
    )


def _check_conditioning(
    conditioning: str,
    known: Sequence[str],
    pred_action_steps_only: bool,
    past_action_visible: bool,
) -> None:
    require(conditioning in known, "policy.conditioning", conditioning, f"use {' or '.join(known)}")
    require(
        not pred_action_steps_only or (conditioning == "global" and not past_action_visible),
        "policy.pred_action_steps_only",
        pred_action_steps_only,
        "use it with conditioning=global and past_action_visible=false, since the trajectory then "
        "has no past",
    )


def _check_normalization(
    spec: TaskSpec, normalization: Mapping[str, str], conditioning: str, process: Process
) -> None:
    mode = normalization.get("VISUAL", "MIN_MAX")
    require(
        not spec.keys_of("VISUAL") or mode == "MIN_MAX",
        "policy.normalization.VISUAL",
        mode,
        "use MIN_MAX; the encoder normalises further, see policy.obs_encoder",
    )
    for modality in ["ACTION"] + ["STATE", "ENV"] * (conditioning == "inpaint"):
        mode = normalization.get(modality, "MIN_MAX")
        require(
            mode == "MIN_MAX" or not process.bounded,
            f"policy.normalization.{modality}",
            mode,
            "use MIN_MAX, or policy.noise_scheduler.clip_sample=false, since samples are clipped "
            "to [-1, 1]",
        )
