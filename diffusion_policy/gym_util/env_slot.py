"""One environment of a rollout: action chunks in, observation histories and totals out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from diffusion_policy.spec.history import ObservationHistory

if TYPE_CHECKING:
    from diffusion_policy.gym_util.video_writer import VideoWriter


class EnvSlot:
    """Runs episodes of one environment, one after the other, chunk of actions by chunk.

    An episode that has ended stays as it is (further chunks do nothing) until :meth:`reset`.

    Args:
        env: the environment; ``info["success"]`` of a step, where there is one, is a bool.
        obs_offsets: times, relative to now, of the To observations to hand out, see
            :class:`ObservationHistory`.
        video_fps: frames per second of recorded episodes.

    Attributes:
        sum_reward, max_reward: over the steps of the episode so far (max: -inf before the first).
        best_step: steps after which ``max_reward`` was reached first; 0 before the first.
        success: whether any step succeeded.
        length: steps so far.
        done: whether the episode has ended.
    """

    def __init__(self, env: gym.Env, obs_offsets: Sequence[int], video_fps: int = 10) -> None:
        self.env = env
        self.video_fps = video_fps
        self._video: VideoWriter | None = None
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
        """Begin an episode; with ``video_path`` it is recorded there (mp4)."""
        self._discard_video()
        observation, _ = self.env.reset(seed=seed, options=options)
        self._history.clear()
        self._history.append(_named(observation))
        self.sum_reward, self.max_reward = 0.0, float("-inf")
        self.success, self.best_step, self.length, self.done = False, 0, 0, False
        if video_path is not None:
            # PyAV is tens of megabytes that a worker without videos does not need.
            from diffusion_policy.gym_util.video_writer import VideoWriter

            self._video = VideoWriter(video_path, self.video_fps)
            self._video.write(np.asarray(self.env.render()))

    def step(self, actions: np.ndarray) -> None:
        """Execute ``actions`` (Ta, Da) in turn, up to the end of the episode."""
        for action in actions:
            if self.done:
                return
            observation, step_reward, terminated, truncated, info = self.env.step(action)
            reward = float(step_reward)
            self._history.append(_named(observation))
            self.sum_reward += reward
            self.length += 1
            if reward > self.max_reward:
                self.max_reward, self.best_step = reward, self.length
            self.success |= bool(info.get("success", False))
            self.done = terminated or truncated
            if self._video is not None:
                self._video.write(np.asarray(self.env.render()))
                if self.done:
                    self._video.close()
                    self._video = None

    def observations(self) -> list[dict[str, Any]]:
        """The To single observations at ``obs_offsets``, oldest first."""
        return self._history.read()

    def close(self) -> None:
        """Close the environment and drop an unfinished video."""
        self._discard_video()
        self.env.close()

    def _discard_video(self) -> None:
        if self._video is not None:
            self._video.discard()
            self._video = None


def _named(observation: Any) -> Mapping[str, Any]:
    return observation if isinstance(observation, Mapping) else {"obs": observation}
