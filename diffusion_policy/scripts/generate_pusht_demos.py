"""Record PushT demonstrations of the scripted expert in a zarr zip.

    python -m diffusion_policy.scripts.generate_pusht_demos --episodes 200 --seed 0 --workers 2

The same ``--episodes`` and ``--seed`` give the same file, byte for byte, for any number of
workers. docs/demonstrations.md describes the expert and the data.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from tqdm import tqdm

from diffusion_policy.env.pusht.expert.scripted_expert import ScriptedExpert
from diffusion_policy.env.pusht.simulation import (
    GOAL_POSE,
    SUCCESS_COVERAGE,
    WORLD_SIZE,
    PushTSimulation,
    initial_state,
)
from diffusion_policy.util.atomic_file import replacing
from diffusion_policy.util.errors import UserError, reports_user_errors, writing

GENERATOR_VERSION = 1
"""Increase this whenever the same arguments give different data."""
MAX_STEPS = 300
DEFAULT_OUTPUT = Path("data/demonstrations/pusht_scripted.zarr.zip")

# The recording holds the expert's action; the simulation executes a disturbed copy of it (Laskey
# et al. 2017, "DART"). Demonstrations then show how to recover from small errors. The disturbance
# is smooth (an autoregression), and each episode draws its strength in world units.
DISTURBANCE_MEMORY = 0.7
STRONGEST_DISTURBANCE = 8.0
# This share of the episodes starts with the block near the goal, where precision matters.
NEAR_GOAL_SHARE = 0.25
NEAR_GOAL_DISTANCE, NEAR_GOAL_ANGLE = 40.0, 0.6
# Start states come from the benchmark's distribution, with seeds that no evaluation uses.
FIRST_START_SEED = 1_000_000_000


@dataclass(frozen=True)
class Demonstration:
    """One successful episode of N steps.

    Attributes:
        initial_state: (5,) float64 argument of ``set_state``.
        state: (N, 5) float32 state before each action.
        action: (N, 2) float32 action of the expert, the target of imitation.
        executed_action: (N, 2) float32 action after disturbance, which led to the next state.
    """

    initial_state: np.ndarray
    state: np.ndarray
    action: np.ndarray
    executed_action: np.ndarray


def record(seed: int, index: int) -> Demonstration | None:
    """Record attempt ``index`` of ``seed``; return None if the expert does not succeed in time."""
    random = np.random.default_rng([seed, index])
    start = _draw_start(random)
    strength = random.uniform(0, STRONGEST_DISTURBANCE)
    disturbance = strength * random.standard_normal(2)
    simulation, expert = PushTSimulation(), ScriptedExpert()
    simulation.set_state(start)
    states, actions, executed = [], [], []
    for _ in range(MAX_STEPS):
        state = simulation.get_state()
        action = expert.action(state)
        target = np.clip(action + disturbance, 0, WORLD_SIZE).astype(np.float32)
        states.append(state)
        actions.append(action)
        executed.append(target)
        simulation.step(target)
        if simulation.coverage() > SUCCESS_COVERAGE:
            return Demonstration(
                start,
                np.array(states, np.float32),
                np.array(actions, np.float32),
                np.array(executed, np.float32),
            )
        fresh = math.sqrt(1 - DISTURBANCE_MEMORY**2) * strength * random.standard_normal(2)
        disturbance = DISTURBANCE_MEMORY * disturbance + fresh
    return None


def _draw_start(random: np.random.Generator) -> np.ndarray:
    start = initial_state(int(random.integers(FIRST_START_SEED, 2**31)))
    if random.uniform() < NEAR_GOAL_SHARE:
        start[2:4] = GOAL_POSE[:2] + random.uniform(-NEAR_GOAL_DISTANCE, NEAR_GOAL_DISTANCE, 2)
        start[4] = GOAL_POSE[2] + random.uniform(-NEAR_GOAL_ANGLE, NEAR_GOAL_ANGLE)
    return start


def check_replay(demonstration: Demonstration) -> None:
    """Replay the executed actions; raise RuntimeError unless they reproduce every state."""
    simulation = PushTSimulation()
    simulation.set_state(demonstration.initial_state)
    for step, (state, target) in enumerate(
        zip(demonstration.state, demonstration.executed_action, strict=True)
    ):
        if not np.array_equal(simulation.get_state().astype(np.float32), state):
            raise RuntimeError(f"the replay differs from the recorded state at step {step}")
        simulation.step(target)
    if not simulation.coverage() > SUCCESS_COVERAGE:
        raise RuntimeError("the replay does not end in success")


def _attempt(job: tuple[int, int]) -> Demonstration | None:
    demonstration = record(*job)
    if demonstration is not None:
        check_replay(demonstration)
    return demonstration


def generate(episodes: int, seed: int, workers: int = 1) -> Iterator[Demonstration]:
    """Yield the first ``episodes`` successful attempts of ``seed``, in order."""
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        found, tried = 0, 0
        while found < episodes:
            jobs = [(seed, index) for index in range(tried, tried + episodes - found)]
            tried += len(jobs)
            for demonstration in pool.imap(_attempt, jobs):
                if demonstration is not None:
                    found += 1
                    yield demonstration


def save(demonstrations: list[Demonstration], seed: int, path: Path) -> None:
    """Write a zarr zip (format 2) to ``path`` atomically.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    lengths = [len(demonstration.state) for demonstration in demonstrations]
    arrays = {
        f"data/{key}": np.concatenate([getattr(d, key) for d in demonstrations])
        for key in ("state", "action", "executed_action")
    }
    arrays["meta/episode_ends"] = np.cumsum(lengths, dtype=np.int64)
    arrays["meta/initial_state"] = np.stack([d.initial_state for d in demonstrations])
    with writing(path), tempfile.TemporaryDirectory() as folder, replacing(path) as archive:
        group = zarr.open_group(folder, mode="w", zarr_format=2)
        group.attrs.update(
            generator="diffusion_policy.scripts.generate_pusht_demos",
            generator_version=GENERATOR_VERSION,
            seed=seed,
            episodes=len(demonstrations),
        )
        for key, values in arrays.items():
            group.create_array(key, data=values, chunks=values.shape)
        with zipfile.ZipFile(archive, "w") as bundle:
            for file in sorted(entry for entry in Path(folder).rglob("*") if entry.is_file()):
                # A ZipInfo from a name alone has a constant date, so the bytes do not change.
                name = zipfile.ZipInfo(file.relative_to(folder).as_posix())
                bundle.writestr(name, file.read_bytes())


@reports_user_errors
def main() -> None:
    """Parse the command line, record, check and save, and print a summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=200, help="number of successful episodes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    args = parser.parse_args()
    for name, least in (("episodes", 1), ("seed", 0), ("workers", 1)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} is {getattr(args, name)}; use at least {least}")
    if args.output.exists():
        raise UserError(f"--output {args.output} exists; remove it or choose another path")
    recording = generate(args.episodes, args.seed, args.workers)
    demonstrations = list(tqdm(recording, total=args.episodes, desc="episodes", disable=None))
    save(demonstrations, args.seed, args.output)
    lengths = [len(d.state) for d in demonstrations]
    print(
        f"{args.output}: {len(lengths)} episodes, {sum(lengths)} steps "
        f"({min(lengths)} to {max(lengths)}, mean {np.mean(lengths):.0f}), "
        f"{args.output.stat().st_size / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
