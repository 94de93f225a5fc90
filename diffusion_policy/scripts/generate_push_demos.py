"""Record demonstrations of the scripted expert on push in a zarr folder.

    python -m diffusion_policy.scripts.generate_push_demos --episodes 200 --seed 0 --workers 2

The same ``--episodes`` and ``--seed`` give the same episodes for any number of workers. Each
episode is whole on disk as soon as it is recorded.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diffusion_policy.dataset.stores.zarr_writer import ZarrWriter
from diffusion_policy.env.metaworld import MAX_EPISODE_STEPS
from diffusion_policy.env.metaworld.push_env import CONTROL_HZ, PushEnv
from diffusion_policy.env.metaworld.push_expert import push_action
from diffusion_policy.util.errors import UserError, reports_user_errors

DEFAULT_OUTPUT = Path("data/push/push_scripted.zarr")

# The recording holds the expert's action; the environment executes a disturbed copy of it (Laskey
# et al. 2017, "DART"). Demonstrations then show how to recover from small errors. The disturbance
# is smooth (an autoregression), and each episode draws its strength.
DISTURBANCE_MEMORY = 0.7
# Start states have seeds that no evaluation uses.
FIRST_START_SEED = 1_000_000_000

Episode = dict[str, np.ndarray]
"""``image`` (N, 3, 84, 84) uint8, ``gripper_pos`` and ``action`` (N, 3) float32."""


class Recorder:
    """Records attempts in one environment.

    Args:
        noise: largest standard deviation of the disturbance of actions, which are in [-1, 1].
    """

    def __init__(self, noise: float) -> None:
        self.noise = noise
        self.env = PushEnv()

    def record(self, seed: int, index: int) -> Episode | None:
        """Attempt ``index`` of ``seed``; None if the expert does not succeed in time."""
        random = np.random.default_rng([seed, index])
        observation, info = self.env.reset(seed=int(random.integers(FIRST_START_SEED, 2**31)))
        strength = random.uniform(0, self.noise)
        disturbance = strength * random.standard_normal(3)
        steps: dict[str, list[np.ndarray]] = {"image": [], "gripper_pos": [], "action": []}
        for _ in range(MAX_EPISODE_STEPS):
            action = push_action(observation["gripper_pos"], info["puck_pos"], info["goal_pos"])
            for key, value in {**observation, "action": action.astype(np.float32)}.items():
                steps[key].append(value)
            observation, _, success, _, info = self.env.step(action + disturbance)
            if success:
                return {key: np.stack(values) for key, values in steps.items()}
            fresh = math.sqrt(1 - DISTURBANCE_MEMORY**2) * strength * random.standard_normal(3)
            disturbance = DISTURBANCE_MEMORY * disturbance + fresh
        return None


@cache
def _recorder(noise: float) -> Recorder:
    """The recorder of this process."""
    return Recorder(noise)


def _attempt(job: tuple[int, int], noise: float) -> Episode | None:
    # Not in an initializer of the pool, which would start processes for ever if it failed.
    return _recorder(noise).record(*job)


def generate(episodes: int, seed: int, workers: int, noise: float) -> Iterator[Episode]:
    """Yield the first ``episodes`` successful attempts of ``seed``, in order."""
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        found, tried = 0, 0
        while found < episodes:
            jobs = [(seed, index) for index in range(tried, tried + episodes - found)]
            tried += len(jobs)
            for episode in pool.imap(partial(_attempt, noise=noise), jobs):
                if episode is not None:
                    found += 1
                    yield episode


@reports_user_errors
def main() -> None:
    """Parse the command line, record, and print a summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=200, help="number of successful episodes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument(
        "--noise",
        type=float,
        default=0.15,
        help="largest standard deviation of what is added to executed actions; 0 adds nothing",
    )
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    args = parser.parse_args()
    for name, least in (("episodes", 1), ("seed", 0), ("workers", 1), ("noise", 0)):
        if not getattr(args, name) >= least:
            raise UserError(f"--{name} is {getattr(args, name)}; use at least {least}")
    if args.output.exists():
        raise UserError(f"--output {args.output} exists; remove it or choose another path")
    writer = ZarrWriter(args.output, fps=CONTROL_HZ)
    lengths = []
    recording = generate(args.episodes, args.seed, args.workers, args.noise)
    for episode in tqdm(recording, total=args.episodes, desc="episodes", disable=None):
        writer.add_episode(episode)
        lengths.append(len(episode["action"]))
    writer.finish()
    size = sum(file.stat().st_size for file in args.output.rglob("*") if file.is_file())
    print(
        f"{args.output}: {len(lengths)} episodes, {sum(lengths)} steps "
        f"({min(lengths)} to {max(lengths)}, mean {np.mean(lengths):.0f}), {size / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
