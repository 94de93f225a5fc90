"""PushT as a gymnasium environment: the simulation plus observations, reward and rendering."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from diffusion_policy.env.pusht.observations import OBSERVATIONS
from diffusion_policy.env.pusht.simulation import (
    CONTROL_HZ,
    SUCCESS_COVERAGE,
    WORLD_SIZE,
    PushTSimulation,
    initial_state,
)
from diffusion_policy.util.errors import UserError

if TYPE_CHECKING:
    from diffusion_policy.env.pusht.window import Window

KEYPOINT_FLAVOURS: dict[str, str | tuple[str, ...]] = {
    "diffusion_policy": "obs",
    "lerobot": ("environment_state", "agent_pos"),
}
"""The two published low-dimensional observations of PushT, as ``obs`` of :class:`PushTEnv`."""
_LARGEST_FRAME = 4096  # pixels of a side: a size may come in a file, and is memory


class PushTEnv(gymnasium.Env):
    """Push the T onto its goal.

    An action (2,) is the agent's target x, y in world units, held for 0.1 s. The reward is
    coverage / 0.95, at most 1; the episode terminates when coverage exceeds 0.95. ``info`` holds
    ``success`` (bool), ``coverage`` in [0, 1], ``state`` (5,) float64 with the angle not wrapped,
    and ``agent_pos`` (2,) float64.

    Args:
        obs: one name of ``observations.OBSERVATIONS``, observed as its array, or several names,
            observed as a dict. Other observations are not computed.
        legacy: set states in the order that the published demonstrations and evaluations use
            (see :meth:`PushTSimulation.set_state`).
        render_mode: ``"rgb_array"`` draws on :meth:`render`, ``"human"`` shows every step in a
            window, ``None`` draws nothing.
        render_size: side of rendered frames in pixels; does not change observations.
    """

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012

    def __init__(
        self,
        obs: str | Sequence[str] = "state",
        *,
        legacy: bool = True,
        render_mode: str | None = None,
        render_size: int = WORLD_SIZE,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise UserError(
                f"render_mode={render_mode!r} is unknown: use {self.metadata['render_modes']}"
            )
        if not 1 <= render_size <= _LARGEST_FRAME:
            raise UserError(
                f"render_size={render_size} cannot be drawn: use 1 to {_LARGEST_FRAME} pixels"
            )
        for name in [obs] if isinstance(obs, str) else obs:
            if name not in OBSERVATIONS:
                raise UserError(
                    f"obs={name!r} is not an observation of PushT: use {list(OBSERVATIONS)}"
                )
        self.obs = obs
        self.legacy = legacy
        self.render_mode = render_mode
        self.render_size = render_size
        self.action_space = spaces.Box(0, WORLD_SIZE, (2,), np.float32)
        self.observation_space = (
            OBSERVATIONS[obs].space
            if isinstance(obs, str)
            else spaces.Dict({name: OBSERVATIONS[name].space for name in obs})
        )
        self.simulation = PushTSimulation()
        self._last_action: np.ndarray | None = None
        self._window: Window | None = None

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray | dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode.

        Args:
            seed: start from the benchmark's state of that seed, and seed later resets.
            options: ``{"state": (5,)}`` starts from this agent x, y, block x, y, angle instead.
        """
        super().reset(seed=seed)
        state = (options or {}).get("state")
        if state is not None:
            state = _vector("state", state, 5)
        elif seed is not None:
            state = initial_state(seed)
        else:
            state = initial_state(int(self.np_random.integers(2**32)))
        # A new world, because pymunk caches contacts of the last episode.
        self.simulation = PushTSimulation()
        self.simulation.set_state(state, legacy=self.legacy)
        self._last_action = None
        observation, info = self._observe(self.simulation.coverage())
        self._show()
        return observation, info

    def step(
        self, action: np.ndarray
    ) -> tuple[np.ndarray | dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Send the agent towards ``action`` (2,) for one control period."""
        action = _vector("action", action, 2)
        self.simulation.step(action)
        self._last_action = action
        coverage = self.simulation.coverage()
        observation, info = self._observe(coverage)
        self._show()
        return observation, min(coverage / SUCCESS_COVERAGE, 1.0), info["success"], False, info

    def render(self) -> np.ndarray | None:
        """The current frame (render_size, render_size, 3) uint8; a cross marks the last action."""
        if self.render_mode != "rgb_array":
            return None
        return self._frame()

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def _observe(
        self, coverage: float
    ) -> tuple[np.ndarray | dict[str, np.ndarray], dict[str, Any]]:
        state = self.simulation.get_state()
        observation = (
            OBSERVATIONS[self.obs].compute(state)
            if isinstance(self.obs, str)
            else {name: OBSERVATIONS[name].compute(state) for name in self.obs}
        )
        info = {
            "success": coverage > SUCCESS_COVERAGE,
            "coverage": coverage,
            "state": state,
            "agent_pos": state[:2].copy(),
        }
        return observation, info

    def _frame(self) -> np.ndarray:
        from diffusion_policy.env.pusht.render.renderer import draw

        return draw(self.simulation.get_state(), self.render_size, self._last_action)

    def _show(self) -> None:
        if self.render_mode != "human":
            return
        if self._window is None:
            from diffusion_policy.env.pusht.window import Window

            self._window = Window(self.render_size, self.render_size, "PushT")
        self._window.show(self._frame())
        self._window.wait(1 / CONTROL_HZ)


def make_keypoints_env(keypoints: str = "diffusion_policy", **options: Any) -> PushTEnv:
    """PushT seen through keypoints of the block, in one of the :data:`KEYPOINT_FLAVOURS`."""
    if keypoints not in KEYPOINT_FLAVOURS:
        raise UserError(f"keypoints={keypoints!r} is unknown: use {list(KEYPOINT_FLAVOURS)}")
    return PushTEnv(**{"obs": KEYPOINT_FLAVOURS[keypoints], **options})


def _vector(name: str, values: Any, size: int) -> np.ndarray:
    """``values`` as (size,) float64; a :class:`UserError` unless they are finite and fit."""
    vector = np.asarray(values, dtype=np.float64)
    if vector.shape != (size,):
        raise UserError(f"{name} has shape {vector.shape}: PushT takes {size} numbers")
    if not all(map(math.isfinite, vector.tolist())):
        raise UserError(f"{name}={vector.tolist()} is not finite: check what produced it")
    return vector
