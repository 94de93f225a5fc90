"""A small environment to run rollouts in: a point walks to a goal, and can be made to fail.

It observes arrays, images and text, and begins from a seed or from a given state.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import gymnasium as gym
import numpy as np

from diffusion_policy.util.errors import UserError

SIZE = 10.0
SHAPE_META = {
    "obs": {
        "position": {"shape": [2]},
        "goal": {"shape": [2]},
        "image": {"shape": [3, 4, 6], "type": "rgb"},
    },
    "action": {"shape": [2]},
}


class ToyEnv(gym.Env):
    """The point goes a third of the way to the action; the reward falls with its distance.

    ``reset(options={"state": [x, y, goal x, goal y]})`` begins there. Seeds from ``silent_from`` on
    do not tell success.
    """

    def __init__(
        self, bad_seed=None, failure=None, frame_shape=(15, 17), seeded=True, silent_from=None
    ):
        self.bad_seed, self.failure, self.frame_shape = bad_seed, failure, frame_shape
        self.seeded, self.silent_from = seeded, silent_from
        self.action_space = gym.spaces.Box(0, SIZE, (2,), np.float64)
        self.observation_space = gym.spaces.Dict(
            position=gym.spaces.Box(0, SIZE, (2,), np.float64),
            goal=gym.spaces.Box(0, SIZE, (2,), np.float64),
            image=gym.spaces.Box(0, 255, (3, 4, 6), np.uint8),
            instruction=gym.spaces.Text(8, charset="go leftrih"),
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed if self.seeded else None)
        self.seed, self.steps = seed, 0
        self.position, self.goal = self.np_random.uniform(0, SIZE, (2, 2))
        if options and "state" in options:
            state = np.array(options["state"], dtype=np.float64)
            if state.shape != (4,):
                raise UserError(f"state has shape {state.shape}; give 4 numbers")
            self.position, self.goal = state[:2], state[2:].copy()
        # Written in place on purpose: whoever keeps observations has to copy them.
        self.image = np.zeros((3, 4, 6), np.uint8)
        return self._observe(), {}

    def step(self, action):
        self.steps += 1
        is_bad = self.seed == self.bad_seed and self.steps == 3
        if is_bad:
            fail(self.failure)
        self.position += (action - self.position) / 3
        distance = float(np.linalg.norm(self.position - self.goal))
        success = distance < 0.5
        is_silent = self.silent_from is not None and self.seed >= self.silent_from
        info = {} if is_silent else {"success": success}
        observation = self._observe()
        if is_bad and self.failure == "nan":
            observation["goal"] = np.full(2, np.nan)
        return observation, max(0.0, 1 - distance / SIZE), success, False, info

    def _observe(self):
        self.image[:] = min(255, self.steps)
        return {
            "position": self.position,
            "goal": self.goal,
            "image": self.image,
            "instruction": "go left" if self.goal[0] < self.position[0] else "go right",
        }

    def render(self):
        """Brighter by the step."""
        return np.full((*self.frame_shape, 3), min(255, 10 * self.steps), np.uint8)


def fail(how):
    match how:
        case "raise":
            raise ArithmeticError("the toy broke")
        case "exit":
            sys.exit(7)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            print("ready", flush=True)
            time.sleep(1000)


def make(**kwargs):
    return ToyEnv(**kwargs)


class ModulesEnv(gym.Wrapper):
    """Observes whether its process has imported torch."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = gym.spaces.Box(0, 1, (1,), np.float32)

    def reset(self, **kwargs):
        _, info = self.env.reset(**kwargs)
        return self._observe(), info

    def step(self, action):
        _, *rest = self.env.step(action)
        return (self._observe(), *rest)

    def _observe(self):
        return np.array(["torch" in sys.modules], dtype=np.float32)


def make_observer_of_modules(env_id, **kwargs):
    return ModulesEnv(gym.make(env_id, **kwargs))


def make_broken():
    raise RuntimeError("this toy cannot be built")


def make_elsewhere(pid):
    if os.getpid() == pid:
        raise RuntimeError("this toy may not be built in that process")
    return ToyEnv()


class TalkativeEnv(ToyEnv):
    """Says more than its space allows."""

    def _observe(self):
        return {**super()._observe(), "instruction": "go rightly"}


def make_talkative():
    return TalkativeEnv()
