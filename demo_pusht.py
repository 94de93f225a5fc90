"""Record PushT demonstrations with the mouse into a zarr dataset.

    python demo_pusht.py --output data/my_demonstrations.zarr

Move the mouse onto the round agent; the agent then follows the mouse and every step is recorded.
When the T covers its goal, the episode is saved and the next one starts. Q quits, R restarts the
episode, Space pauses. Episodes are appended to an existing dataset.
"""

from __future__ import annotations

import argparse
import math
from enum import Enum, auto
from pathlib import Path

import cv2
import numpy as np

from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.env.pusht.contacts import contacts
from diffusion_policy.env.pusht.observations import OBSERVATIONS
from diffusion_policy.env.pusht.pusht_env import PushTEnv
from diffusion_policy.env.pusht.render.renderer import draw
from diffusion_policy.env.pusht.simulation import AGENT_RADIUS, CONTROL_HZ, WORLD_SIZE
from diffusion_policy.env.pusht.window import QUIT, Window
from diffusion_policy.util.errors import UserError, reports_user_errors

TEXT_HEIGHT = 48
"""Height in pixels of the text strip below the world."""

MIN_RENDER_SIZE = 256
GRAB_DISTANCE = 2 * AGENT_RADIUS
"""The agent starts to follow the mouse within this distance, in world units."""

Episode = dict[str, np.ndarray]


class Control(Enum):
    """Commands of the user during an episode."""

    QUIT = auto()
    RETRY = auto()


class Teleoperation:
    """Record episodes that the user drives with the mouse in a window.

    Args:
        size: side in pixels of the world in the window.
        control_hz: steps per second of wall time; 10 is real time.
        images: also record the image observation.
    """

    def __init__(self, size: int, control_hz: float, images: bool) -> None:
        self.window = Window(size, size + TEXT_HEIGHT, "PushT demonstrations")
        self.env = PushTEnv()
        self.size = size
        self.period = 1 / control_hz
        self.images = images

    def record(self, seed: int, saved: int) -> Episode | Control:
        """Let the user drive the start state of ``seed`` to success.

        Args:
            seed: seed of the start state.
            saved: number of episodes in the dataset, for display.

        Returns:
            The arrays (N, ...) of the steps from the grab of the agent to success, or the user's
            command instead.
        """
        _, info = self.env.reset(seed=seed)
        steps: list[Episode] = []
        grabbed = paused = False
        while True:
            for key in self.window.pressed():
                if key in ("q", QUIT):
                    return Control.QUIT
                if key == "r":
                    return Control.RETRY
                if key == "space":
                    # Require a new grab: the agent must not jump to the mouse after a pause.
                    paused, grabbed = not paused, False
            state, target = info["state"], self._target()
            if target is not None and not paused:
                grabbed |= math.dist(target, state[:2]) < GRAB_DISTANCE
            status = "paused" if paused else "recording" if grabbed else "move onto the agent"
            lines = (
                f"seed {seed}, step {len(steps)}: {status}",
                f"{saved} episodes saved   Q quit  R retry  Space pause",
            )
            self._show(state, target if grabbed else None, lines)
            if grabbed:
                steps.append(self._observe(state, target))
                *_, info = self.env.step(target)
                if info["success"]:
                    return {key: np.stack([step[key] for step in steps]) for key in steps[0]}
            self.window.wait(self.period)

    def keys(self) -> set[str]:
        """Return the names of an episode's arrays."""
        return set(self._observe(np.zeros(5), np.zeros(2, np.float32)))

    def _target(self) -> np.ndarray | None:
        """Return the mouse in world units (2,) float32, clipped to the world; None if unseen."""
        mouse = self.window.mouse()
        if mouse is None:
            return None
        return np.clip(np.array(mouse, np.float32) * (WORLD_SIZE / self.size), 0, WORLD_SIZE)

    def _observe(self, state: np.ndarray, action: np.ndarray) -> Episode:
        """Return the record of one step: the state before the action, and the action."""
        step = {
            "state": OBSERVATIONS["state"].compute(state),
            "action": action,
            "n_contacts": np.array([len(contacts(state))], np.float32),
            "keypoint": OBSERVATIONS["keypoint"].compute(state).reshape(9, 2),
        }
        if self.images:
            step["img"] = OBSERVATIONS["image"].compute(state).transpose(1, 2, 0)
        return step

    def _show(self, state: np.ndarray, target: np.ndarray | None, lines: tuple[str, str]) -> None:
        strip = np.full((TEXT_HEIGHT, self.size, 3), 255, np.uint8)
        for row, line in enumerate(lines):
            origin = (8, 18 + 20 * row)
            cv2.putText(
                strip, line, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 0, lineType=cv2.LINE_AA
            )
        self.window.show(np.concatenate([draw(state, self.size, target), strip]))


def collect(teleoperation: Teleoperation, buffer: ReplayBuffer) -> None:
    """Append episodes to ``buffer`` until the user quits; the seed is the episode's number.

    Raises:
        UserError: the arrays in the buffer differ from those of these episodes.
    """
    if buffer.n_episodes and set(buffer.keys()) != teleoperation.keys():
        raise UserError(
            f"the dataset holds {sorted(buffer.keys())}, but this recording has "
            f"{sorted(teleoperation.keys())}: choose another --output, or use --images as before"
        )
    while True:
        seed = buffer.n_episodes
        outcome = teleoperation.record(seed, saved=buffer.n_episodes)
        if outcome is Control.QUIT:
            return
        if outcome is Control.RETRY:
            continue
        buffer.add_episode(outcome)
        print(f"saved episode {seed}: {len(outcome['action'])} steps")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "(default: %(default)s)"
    parser.add_argument("--output", type=Path, required=True, help="folder of the zarr dataset")
    parser.add_argument(
        "--control-hz", type=float, default=CONTROL_HZ, help=f"steps per second {default}"
    )
    parser.add_argument(
        "--render-size", type=int, default=WORLD_SIZE, help=f"side of the world, pixels {default}"
    )
    parser.add_argument("--images", action="store_true", help="also record 96 x 96 images")
    return parser.parse_args(arguments)


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    if not options.control_hz > 0:
        raise UserError(
            f"--control-hz is {options.control_hz}: use a positive number, such as 10 for real time"
        )
    if options.render_size < MIN_RENDER_SIZE:
        raise UserError(
            f"--render-size {options.render_size} is too small to steer in: "
            f"use {MIN_RENDER_SIZE} or more"
        )
    # Open the window first, so that a machine without a screen starts no dataset.
    teleoperation = Teleoperation(options.render_size, options.control_hz, options.images)
    buffer = ReplayBuffer.create_from_path(options.output, mode="a")
    print(f"{options.output}: {buffer.n_episodes} episodes")
    collect(teleoperation, buffer)
    print(f"{options.output}: {buffer.n_episodes} episodes, {buffer.n_steps} steps")


if __name__ == "__main__":
    main()
