"""One environment of a rollout: action chunks in, observation histories and totals out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from diffusion_policy.spec.history import ObservationHistory
from diffusion_policy.util.errors import UserError

if TYPE_CHECKING:
    from diffusion_policy.gym_util.video_writer import ByproductVideo


class EnvSlot:
    """Runs episodes of one environment, one after the other, chunk of actions by chunk.

    An episode that has ended stays as it is (further chunks do nothing) until :meth:`reset`.

    Args:
        env: the environment.
        obs_offsets: times, relative to now, of the To observations to hand out, see
            :class:`ObservationHistory`.
        video_fps: frames per second of recorded episodes.

    Attributes:
        sum_reward, max_reward: over the steps of the episode so far (max: -inf before the first).
        best_step: steps after which ``max_reward`` was reached first; 0 before the first.
        success: whether any step succeeded.
        tells_success: whether any step said so or not, see :func:`success_of`.
        length: steps so far.
        done: whether the episode has ended.
    """

    def __init__(self, env: gym.Env, obs_offsets: Sequence[int], video_fps: int = 10) -> None:
        self.env = env
        self.video_fps = video_fps
        self._video: ByproductVideo | None = None
        self.configure(obs_offsets)

    def configure(self, obs_offsets: Sequence[int]) -> None:
        """Hand out observations at other times, from the next :meth:`reset` on."""
        self._discard_video()
        self._history = ObservationHistory(obs_offsets)

    def reset(
        self,
        seed: int | None,
        options: dict[str, Any] | None = None,
        video_path: str | None = None,
    ) -> None:
        """Begin an episode; with ``video_path`` it is recorded there (mp4).

        Raises:
            UserError: the environment draws no picture to record.
        """
        self._discard_video()
        observation, _ = self.env.reset(seed=seed, options=options)
        self._history.clear()
        self._history.append(_named(observation))
        self.sum_reward, self.max_reward = 0.0, float("-inf")
        self.success = self.tells_success = self.done = False
        self.best_step = self.length = 0
        if video_path is not None:
            # PyAV is tens of megabytes that a worker without videos does not need.
            from diffusion_policy.gym_util.video_writer import ByproductVideo

            self._video = ByproductVideo(video_path, self.video_fps)
            self._video.write(self.frame())

    def step(self, actions: np.ndarray) -> None:
        """Execute ``actions`` (Ta, Da) in turn, up to the end of the episode.

        Raises:
            UserError: a reward is not finite.
        """
        for action in actions:
            if self.done:
                return
            observation, step_reward, terminated, truncated, info = self.env.step(action)
            reward = float(step_reward)
            self._history.append(_named(observation))
            self.sum_reward += reward
            self.length += 1
            if not math.isfinite(reward):
                raise UserError(
                    f"the reward of step {self.length} is {reward}; correct the environment, since "
                    "no score can be made of it"
                )
            if reward > self.max_reward:
                self.max_reward, self.best_step = reward, self.length
            success = success_of(info)
            self.tells_success |= success is not None
            self.success |= bool(success)
            self.done = terminated or truncated
            if self._video is not None:
                self._video.write(self.frame())
                if self.done:
                    self._video.close()
                    self._video = None

    def observations(self) -> list[dict[str, Any]]:
        """The To single observations at ``obs_offsets``, oldest first."""
        return self._history.read()

    def frame(self) -> np.ndarray:
        """A picture of the present state, (H, W, 3) uint8.

        Raises:
            UserError: the environment draws none.
        """
        frame = self.env.render()
        if isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.shape[2:] == (3,):
            return frame
        kind = type(frame).__name__
        found = f"{frame.dtype} of shape {frame.shape}" if isinstance(frame, np.ndarray) else kind
        raise UserError(
            f"videos are asked for, but render() of the environment gives {found}, not (H, W, 3) "
            "uint8; correct it, or record nothing: task.env_runner.n_train_vis=0 "
            "task.env_runner.n_test_vis=0, or eval.py --n-videos 0"
        )

    def close(self) -> None:
        """Close the environment and drop an unfinished video."""
        self._discard_video()
        self.env.close()

    def _discard_video(self) -> None:
        if self._video is not None:
            self._video.discard()
            self._video = None


def success_of(info: Mapping[str, Any]) -> bool | None:
    """Whether a step succeeded: a bool under ``success`` or ``is_success``; None: it is not told.

    Other values, such as numbers or a dict of several tasks, are no answer: a guess at what they
    mean would pass for a score.
    """
    for key in ("success", "is_success"):
        value = info.get(key)
        if isinstance(value, bool | np.bool_):
            return bool(value)
        if isinstance(value, np.ndarray) and value.shape == () and value.dtype == bool:
            return bool(value)
    return None


def _named(observation: Any) -> Mapping[str, Any]:
    return observation if isinstance(observation, Mapping) else {"obs": observation}
