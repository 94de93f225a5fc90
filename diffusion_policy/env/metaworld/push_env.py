"""Meta-World's push-v3 from images: push a puck to its goal with closed fingers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from diffusion_policy.env.metaworld.camera import Camera, prepare_drawing, simplify_lights
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.extras import import_extra

IMAGE_SIZE = 84
CONTROL_HZ = 80
_CAMERA = "corner"
_CLOSED = 1.0  # Meta-World's fourth action: effort of the fingers
_LARGEST_REWARD = 10.0  # Meta-World's, of success


class PushEnv(gymnasium.Env):
    """Push the puck onto the goal, both at random places of a table.

    An action (3,) in [-1, 1] moves the gripper by up to a centimetre along x, y, z in 1/80 s. The
    observation holds ``image`` (3, 84, 84) uint8 and ``gripper_pos`` (3,) float32 metres. The
    reward is Meta-World's, divided by its largest: 1 is success, which ends the episode. The puck
    is then within 5 cm of the goal. ``info`` holds ``success`` (bool), and ``puck_pos`` and
    ``goal_pos`` (3,) float64 metres.

    Args:
        render_mode: ``"rgb_array"`` draws on :meth:`render`, None draws nothing but observations.
        render_size: side of rendered frames in pixels; does not change observations.

    Raises:
        UserError: Meta-World is not installed, or nothing can be drawn on this machine.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": CONTROL_HZ}  # noqa: RUF012

    def __init__(self, *, render_mode: str | None = None, render_size: int = 256) -> None:
        if render_mode not in (None, "rgb_array"):
            raise UserError(f"render_mode={render_mode!r} is unknown: use rgb_array, or None")
        if render_size < 1:
            raise UserError(f"render_size={render_size} draws nothing: use 1 pixel or more")
        self.render_mode, self.render_size = render_mode, render_size
        prepare_drawing()
        envs = import_extra("metaworld.env_dict", "metaworld", "the task push")
        self._forward = import_extra("mujoco", "metaworld", "the task push").mj_forward
        self._world = envs.ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE["push-v3-goal-observable"](seed=0)
        # Each reset draws new places, from the generator that reset() seeds.
        self._world.seeded_rand_vec, self._world._freeze_rand_vec = True, False
        simplify_lights(self._world.model)
        self._eye = Camera(self._world.model, _CAMERA, IMAGE_SIZE, upside_down=True)
        self._film: Camera | None = None
        self.action_space = spaces.Box(-1, 1, (3,), np.float32)
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (3, IMAGE_SIZE, IMAGE_SIZE), np.uint8),
                "gripper_pos": spaces.Box(-np.inf, np.inf, (3,), np.float32),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode; ``seed`` decides places of puck and goal, and seeds later resets."""
        super().reset(seed=seed)
        self._world.seed(int(self.np_random.integers(2**31)))
        state, _ = self._world.reset()
        # Meta-World moves the goal last; until now it would be drawn where it was before.
        self._forward(self._world.model, self._world.data)
        return self._observe(state), self._info(state, success=False)

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Move the gripper for one control period."""
        motion = np.asarray(action, dtype=np.float64)
        if motion.shape != (3,) or not all(map(math.isfinite, motion.tolist())):
            raise UserError(f"action is {motion.tolist()}: push takes three finite numbers")
        closed = np.append(motion.clip(-1, 1), _CLOSED).astype(np.float32)
        state, reward, _, _, told = self._world.step(closed)
        info = self._info(state, success=bool(told["success"]))
        share = min(float(reward) / _LARGEST_REWARD, 1.0)
        return self._observe(state), share, info["success"], False, info

    def render(self) -> np.ndarray | None:
        """The current frame (render_size, render_size, 3) uint8."""
        if self.render_mode is None:
            return None
        if self._film is None:
            self._film = Camera(self._world.model, _CAMERA, self.render_size, upside_down=True)
        return self._film.take(self._world.data)

    def close(self) -> None:
        """Free what the graphics library holds."""
        for camera in (self._eye, self._film):
            if camera is not None:
                camera.close()

    def _observe(self, state: np.ndarray) -> dict[str, np.ndarray]:
        picture = self._eye.take(self._world.data)
        return {
            "image": np.ascontiguousarray(picture.transpose(2, 0, 1)),
            "gripper_pos": state[:3].astype(np.float32),
        }

    def _info(self, state: np.ndarray, *, success: bool) -> dict[str, Any]:
        return {
            "success": success,
            "puck_pos": state[4:7].copy(),
            "goal_pos": state[-3:].copy(),
        }
