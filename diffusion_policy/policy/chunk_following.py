"""Follow predicted chunks of actions, in every environment on its own.

A policy predicts a chunk of actions at some control steps, and must act at all of them. How it gets
from one to the other is the same for every such policy:

- receding horizon: execute the first Ta actions of a chunk, then predict the next chunk;
- temporal ensembling (Zhao et al. 2023, section IV-A): average what the latest chunks say about
  the same step;
- ``predict_every_n``, ``return_every_n`` and ``stall_skip``: predict less often, move faster, and
  skip a part of the chunk.

Legend: P rows of a chunk before now, H rows from now on, K kept chunks, D numbers of a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.util.errors import require

Weights = Callable[[int], Tensor]
"""From a number n of chunks to their n weights by age, the newest chunk first; the sum is 1."""


def geometric_weights(alpha: float) -> Weights:
    """``alpha ** age``, divided by the sum; 0 follows the newest chunk alone.

    Raises:
        UserError: ``alpha`` is not in 0..1.
    """
    require(0 <= alpha <= 1, "policy.alpha", alpha, "use 0..1")

    def weights(n: int) -> Tensor:
        by_age = alpha ** torch.arange(n)
        return by_age / by_age.sum()

    return weights


def oldest_first_weights(coefficient: float | None) -> Weights:
    """``exp(-coefficient * i)``, divided by the sum, where i = 0 is the oldest chunk, as in ACT.

    None follows the newest chunk alone.

    Raises:
        UserError: ``coefficient`` is not a finite number.
    """
    if coefficient is None:
        return geometric_weights(0)
    remedy = "use a number, such as 0.01, or null to follow the newest chunk alone"
    fits = type(coefficient) in (int, float) and math.isfinite(coefficient)
    require(fits, "policy.temporal_ensemble_coeff", coefficient, remedy)

    def weights(n: int) -> Tensor:
        # Relative to the largest, which is finite whatever the coefficient.
        exponents = -coefficient * torch.arange(n, dtype=torch.float64).flip(0)
        return exponents.softmax(0).float()

    return weights


class ChunkFollower:
    """Remembers the latest chunks of each environment, and tells the next actions.

    Each step along the plan keeps the newest chunk. Chunks are kept as seen from now, so that
    column 0 is now and the last row repeats where a chunk has ended. For H = 4 and K = 3::

        age 0    0  1  2  3
        age 1    1  2  3  3      action = sum over ages of weight[age] * chunk[age][0]
        age 2    2  3  3  3

    A control step is ``return_every_n`` steps along the plan, and executes the last of them.

    Args:
        n_ahead: H.
        weights: of the kept chunks; K is the largest age with a weight other than 0, plus 1.
        first_chunk_fills: at the start of an episode the first chunk stands for those that are
            missing, as in DOT; False averages the chunks that there are, as in ACT.
        n_action_steps: Ta, control steps of a call of :meth:`follow`.
        predict_every_n: calls from one prediction to the next.
        return_every_n: steps along the plan per control step; more moves faster.
        stall_skip: steps of a new chunk to skip in environments that stand still.

    Raises:
        UserError: a setting is out of range, or the chunk would end before the next prediction.
    """

    def __init__(
        self,
        n_ahead: int,
        weights: Weights,
        *,
        first_chunk_fills: bool = True,
        n_action_steps: int = 1,
        predict_every_n: int = 1,
        return_every_n: int = 1,
        stall_skip: int = 0,
    ) -> None:
        _check_settings(n_ahead, n_action_steps, predict_every_n, return_every_n, stall_skip)
        self.n_ahead = n_ahead
        self.n_action_steps = n_action_steps
        self.predict_every_n = predict_every_n
        self.return_every_n = return_every_n
        self.stall_skip = stall_skip
        self.first_chunk_fills = first_chunk_fills
        # Row n - 1: the weights of n chunks.
        table = torch.zeros(n_ahead, n_ahead)
        for n in range(1, n_ahead + 1):
            table[n - 1, :n] = weights(n)
        self.n_kept = int(table.any(0).nonzero().max()) + 1
        self._weights = table[:, : self.n_kept]
        self.reset()

    @property
    def n_actions_ahead(self) -> int:
        """Actions that the plan holds at any call, also just before the next prediction."""
        steps = self.n_ahead - self.stall_skip
        return steps // self.return_every_n - (self.predict_every_n - 1) * self.n_action_steps

    @property
    def offsets(self) -> tuple[int, ...]:
        """Times of the planned actions, in steps along the plan from now."""
        return tuple(range(self.return_every_n - 1, self.n_ahead, self.return_every_n))

    def reset(self, ids: Sequence[int] | None = None) -> None:
        """Forget the chunks of these environments, or of all when None."""
        if ids is None:
            self._n_calls = torch.empty(0, dtype=torch.int64)  # since the episode began
            self._n_steps = torch.empty(0, dtype=torch.int64)  # along the plan since then
            self._newest = self._kept = torch.empty(0)  # sized by the first chunk
        else:
            known = [i for i in ids if i < len(self._n_calls)]
            self._n_calls[known] = 0
            self._n_steps[known] = 0

    def due(self, ids: Tensor) -> Tensor:
        """(n,) bool on the CPU: these environments need a new chunk now."""
        n_envs = int(ids.max()) + 1
        self._n_calls = _with_room(self._n_calls, n_envs)
        self._n_steps = _with_room(self._n_steps, n_envs)
        return self._n_calls[ids] % self.predict_every_n == 0

    def n_control_steps(self, ids: Tensor) -> Tensor:
        """(n,) control steps since the episodes of these environments began."""
        return self._n_calls[ids] * self.n_action_steps

    def take(self, ids: Tensor, chunks: Tensor) -> None:
        """Follow ``chunks`` (n, P + H, D) from now on; row P is for now."""
        if self._newest.ndim == 1:
            n_dims = chunks.shape[-1]
            self._newest = chunks.new_zeros(0, *chunks.shape[1:])
            self._kept = chunks.new_zeros(0, self.n_kept, self.n_ahead, n_dims)
            self._weights = self._weights.to(chunks.device)
        self._newest = _with_room(self._newest, len(self._n_calls))
        self._kept = _with_room(self._kept, len(self._n_calls))
        self._newest[ids] = chunks
        if self.first_chunk_fills:
            first = self._n_calls[ids] == 0
            plan = chunks[first.to(chunks.device), -self.n_ahead :]
            self._kept[ids[first]] = plan[:, None].expand(-1, self.n_kept, -1, -1)

    def follow(self, ids: Tensor, stalled: Tensor | None = None) -> Tensor:
        """The plan of these environments, which then are Ta control steps further.

        Args:
            ids: (n,) environments, each of which has a chunk.
            stalled: (n,) bool on the CPU, which of them first skip ``stall_skip`` steps.

        Returns:
            (n, P + H // return_every_n, D): the newest chunk before now, then the actions at
            ``offsets``, the first Ta of which are to be executed.
        """
        past = self._newest[ids][:, : -self.n_ahead]
        if stalled is not None and stalled.any():
            for _ in range(self.stall_skip):
                self._advance(ids[stalled])
        actions = []
        for _ in range(self.n_action_steps):
            for _ in range(self.return_every_n):
                planned = self._advance(ids)
            actions.append(planned[:, :1])
        self._n_calls[ids] += 1
        stride = self.return_every_n
        n_left = self.n_ahead - self.n_action_steps * stride
        return torch.cat([past, *actions, planned[:, stride : n_left + 1 : stride]], dim=1)

    def _advance(self, ids: Tensor) -> Tensor:
        """One step along the plan: (n, H, D), the mean of the kept chunks before that step."""
        newest = self._newest[ids]
        chunks = newest[:, None, -self.n_ahead :]
        if self.n_kept > 1:
            chunks = torch.cat([chunks, self._kept[ids, :-1]], dim=1)
            self._kept[ids] = _next_step(chunks, dim=2)
        self._newest[ids] = _next_step(newest, dim=1)
        # Not a matrix product, which autocast would round to a pixel.
        planned = (self._weights_of(ids)[..., None, None] * chunks).sum(1)
        self._n_steps[ids] += 1
        return planned

    def _weights_of(self, ids: Tensor) -> Tensor:
        """(n, K) weights of the kept chunks, or (K,) where all environments have all of them."""
        if self.first_chunk_fills:
            return self._weights[-1]
        n_chunks = (self._n_steps[ids] + 1).clamp(max=self.n_ahead)
        return self._weights[n_chunks.to(self._weights.device) - 1]


class ChunkPolicy(BasePolicy):
    """A policy whose ``follower`` tells the actions between its predictions.

    Subclasses set ``follower`` and ``window``, and pass on the settings that are named here.

    Attributes:
        weights_setting: name of the setting that weighs chunks by age.
    """

    weights_setting: ClassVar[str] = "alpha"
    inference_settings: ClassVar[tuple[str, ...]] = ("alpha", "predict_every_n", "return_every_n")
    follower: ChunkFollower

    @property
    def n_actions_ahead(self) -> int:
        """See :class:`BasePolicy`; what is left of a plan just before the next prediction."""
        return self.follower.n_actions_ahead

    @property
    def action_pred_offsets(self) -> tuple[int, ...]:
        """See :class:`BasePolicy`; the past, and the steps that ``return_every_n`` leaves."""
        past = tuple(offset for offset in self.window.action_offsets if offset < 0)
        return past + self.follower.offsets

    @property
    def mixes_actions(self) -> tuple[str, ...]:
        """See :class:`BasePolicy`."""
        mixes = (self.follower.n_kept > 1, self.follower.predict_every_n > 1)
        return tuple(compress((self.weights_setting, "predict_every_n"), mixes))

    @property
    def skips_actions(self) -> tuple[str, ...]:
        """See :class:`BasePolicy`."""
        skips = (self.follower.return_every_n > 1, self.follower.stall_skip > 0)
        return tuple(compress(("return_every_n", "stall_skip"), skips))

    def reset(
        self, env_ids: Sequence[int] | None = None, seeds: Sequence[int] | None = None
    ) -> None:
        """Forget the chunks of these environments, or of all when None."""
        self.follower.reset(env_ids)


def environments(obs: Mapping[str, Any], env_ids: Sequence[int] | None) -> Tensor:
    """(B,) the environment of each row of ``obs``: ``env_ids``, or 0..B-1 when None."""
    return (
        torch.arange(len(next(iter(obs.values())))) if env_ids is None else torch.as_tensor(env_ids)
    )


def rows_of(obs: Mapping[str, Any], rows: Tensor) -> Mapping[str, Any]:
    """The rows of each observation, a tensor or a list, at which ``rows`` (B,) bool is True."""
    # Indexing copies, so skip it in the usual case that all are wanted.
    if rows.all():
        return obs
    kept = rows.nonzero()[:, 0].tolist()
    return {
        key: [value[row] for row in kept] if isinstance(value, list) else value[kept]
        for key, value in obs.items()
    }


def _with_room(memory: Tensor, n_envs: int) -> Tensor:
    """``memory`` (n, ...) for at least ``n_envs`` environments, new ones 0."""
    missing = n_envs - len(memory)
    if missing <= 0:
        return memory
    return torch.cat([memory, memory.new_zeros(missing, *memory.shape[1:])])


def _next_step(chunks: Tensor, dim: int) -> Tensor:
    """Chunks seen from one step later: shifted along ``dim``, the last row repeated."""
    last = chunks.shape[dim] - 1
    return torch.cat([chunks.narrow(dim, 1, last), chunks.narrow(dim, last, 1)], dim)


def _check_settings(
    n_ahead: int,
    n_action_steps: int,
    predict_every_n: int,
    return_every_n: int,
    stall_skip: int,
) -> None:
    chunk = f"a chunk holds {n_ahead} actions from now on"
    for field, value, used in (
        ("return_every_n", return_every_n, n_action_steps),
        ("predict_every_n", predict_every_n, n_action_steps * return_every_n),
    ):
        require(
            # Not isinstance: True is an int.
            type(value) is int and 1 <= value <= n_ahead // used,
            f"policy.{field}",
            value,
            f"use a whole number from 1 to {n_ahead // used}, or the plan runs out: {chunk}",
        )
    most = n_ahead - n_action_steps * return_every_n * predict_every_n
    require(
        type(stall_skip) is int and 0 <= stall_skip <= most,
        "policy.stall_skip",
        stall_skip,
        f"use a whole number from 0 to {most}, or the plan runs out: {chunk}",
    )
