"""The contract of whatever acts: raw observations in, raw actions out. Imports no torch.

Shapes: B environments, To observation times, N planned actions, Ta executed actions, Da numbers
of an action.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Self

import numpy as np

from diffusion_policy.spec.history import ObservationHistory
from diffusion_policy.spec.observation import checked_observations
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.util.errors import UserError


class Prediction(NamedTuple):
    """Answer of :meth:`Agent.predict`.

    Attributes:
        action: (B, Ta, Da) float32 to execute from now on; raw units.
        plan: (B, N, Da) float32, row k for k control steps after the latest observation read.
    """

    action: np.ndarray
    plan: np.ndarray


class Actions(NamedTuple):
    """Answer of :meth:`Agent.act`.

    Attributes:
        action: (n, Da) float32, what is left of the current chunk; row 0 is due now. Raw units.
        times: (n,) float64, when each is due: seconds, or control steps where the task names no
            ``fps``.
    """

    action: np.ndarray
    times: np.ndarray


class Agent(ABC):
    """Acts for one robot (:meth:`act`), or for many environments (:meth:`predict`).

    :meth:`act` keeps the history of observations and the current chunk of actions. Call it once per
    control step::

        agent.reset()
        while running:
            actions = agent.act(robot.observe())
            robot.command(actions.action[0])

    Args:
        spec: what the task observes and commands; raw side.
        obs_offsets: times, relative to its latest observation, that the policy reads; To of them.
        n_action_steps: Ta, actions to execute before the policy is asked again.
        n_actions_ahead: actions that the policy plans from its latest observation on.
        n_latency_steps: control steps from an observation until its first action is executed, as
            on a robot whose policy takes time. The policy reads observations that are so old, and
            the actions planned for the time in between are skipped.

    Raises:
        UserError: the plan is too short for the latency.
    """

    _step: int
    _chunk: np.ndarray
    _chunk_step: int

    def __init__(
        self,
        spec: TaskSpec,
        *,
        obs_offsets: Sequence[int],
        n_action_steps: int,
        n_actions_ahead: int,
        n_latency_steps: int = 0,
    ) -> None:
        self.spec = spec
        self.n_action_steps = n_action_steps
        self.n_actions_ahead = n_actions_ahead
        self._offsets = tuple(obs_offsets)
        self._set_latency(n_latency_steps)

    def _set_latency(self, n_latency_steps: int) -> None:
        most = self.n_actions_ahead - self.n_action_steps
        if not 0 <= n_latency_steps <= max(0, most):
            raise UserError(
                f"n_latency_steps is {n_latency_steps}; use at most {most}, since the policy plans "
                f"{self.n_actions_ahead} actions from its observation on and executes "
                f"{self.n_action_steps} at a time"
            )
        self.n_latency_steps = n_latency_steps
        self._history = ObservationHistory(self.obs_offsets)
        self._forget()

    def with_latency(self, n_latency_steps: int) -> Self:
        """The same agent with another latency; it shares the policy, but not the history.

        Raises:
            UserError: the plan is too short for the latency.
        """
        other = copy.copy(self)
        other._set_latency(n_latency_steps)
        return other

    @property
    def obs_offsets(self) -> tuple[int, ...]:
        """Times, relative to now, of the To observations that :meth:`predict` takes."""
        return tuple(offset - self.n_latency_steps for offset in self._offsets)

    # ------------------------------------------------------------------ for subclasses

    @abstractmethod
    def plan(self, obs: Mapping[str, Any], ids: Sequence[int]) -> np.ndarray:
        """(B, N, Da): row k is for k control steps after the latest observation read.

        Args:
            obs: as :meth:`predict` takes it, checked.
            ids: B of them, see :meth:`predict`.
        """

    @abstractmethod
    def begin(self, ids: Sequence[int] | None, seeds: Sequence[int] | None) -> None:
        """Forget what the policy remembers of these environments, or of all when None."""

    def undisturbed(self, seed: int) -> AbstractContextManager[None]:
        """A block after which a policy in training goes on as if it had not acted."""
        return nullcontext()

    # ------------------------------------------------------------------ many environments

    def reset(self, ids: Sequence[int] | None = None, seeds: Sequence[int] | None = None) -> None:
        """Start episodes: forget the past of these environments, or of all when None.

        Args:
            ids: environments; the robot of :meth:`act` is number 0.
            seeds: where random numbers of each episode start; without ``ids``, of environments
                0, 1, ...
        """
        if ids is None and seeds is not None:
            ids = range(len(seeds))
        if ids is None or 0 in ids:
            self._forget()
        self.begin(ids, seeds)

    def predict(self, obs: Mapping[str, Any], ids: Sequence[int] | None = None) -> Prediction:
        """Actions of B environments.

        Args:
            obs: {key: (B, To, ...)} at ``obs_offsets``, raw units; text is a list of B str.
            ids: environment of each row, for policies that remember; None is 0..B-1.

        Raises:
            UserError: an observation is missing, has the wrong shape or dtype, or is not finite; or
                the policy's actions have the wrong shape, or are not finite.
        """
        n_rows = len(next(iter(obs.values()), ())) if ids is None else len(ids)
        obs = checked_observations(self.spec, obs, (n_rows, len(self._offsets)))
        # Copied, because a policy may go on writing into the array that it handed out.
        plan = np.array(self.plan(obs, range(n_rows) if ids is None else ids))
        first = self.n_latency_steps
        action = plan[:, first : first + self.n_action_steps]
        expected = (n_rows, self.n_action_steps, *self.spec.action.shape)
        if action.shape != expected:
            raise UserError(
                f"the policy's actions have shape {list(action.shape)}, not {list(expected)}; "
                "predict_action and n_action_steps of the policy must agree"
            )
        if not np.isfinite(action).all():
            raise UserError(
                "the policy's actions are not finite; train it anew, or correct its predict_action"
            )
        return Prediction(action, plan)

    # ------------------------------------------------------------------ one robot

    def observe(self, observation: Mapping[str, Any]) -> None:
        """Note the observation of a control step whose action is known already.

        Args:
            observation: {key: (...)} of one time step, raw units; further keys are left out.

        Raises:
            UserError: an observation is missing, has the wrong shape or dtype, or is not finite.
        """
        self._history.append(checked_observations(self.spec, observation))
        self._step += 1

    def act(self, observation: Mapping[str, Any], time: float | None = None) -> Actions:
        """Note the observation of this control step, and tell the actions from now on.

        The policy is asked when its last chunk is used up.

        Args:
            observation: see :meth:`observe`.
            time: of the observation, in the clock that the answer should refer to; None counts
                from the first observation of the episode.
        """
        self.observe(observation)
        if self._step - self._chunk_step >= len(self._chunk):
            self._chunk = self.predict(self._batch(), ids=[0]).action[0]
            self._chunk_step = self._step
        action = self._chunk[self._step - self._chunk_step :]
        period = 1 / self.fps
        now = self._step * period if time is None else time
        return Actions(action, now + period * np.arange(len(action)))

    @property
    def fps(self) -> float:
        """Control steps a second; 1 where the task names none."""
        return self.spec.fps or 1.0

    def _forget(self) -> None:
        self._history.clear()
        self._step = -1  # of the latest observation
        self._chunk = np.empty((0, 0))
        self._chunk_step = 0  # when its first action is due

    def _batch(self) -> dict[str, Any]:
        """The history as a batch of one."""
        observations = self._history.read()
        return {
            key: [observations[-1][key]]
            if field.type == "text"
            else np.stack([observation[key] for observation in observations])[None]
            for key, field in self.spec.obs.items()
        }
