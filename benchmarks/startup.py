"""Start-up: time to the first training step, and memory of a worker process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.case import Options, Work, case, each
from benchmarks.memory import resident_mb
from diffusion_policy.gym_util.make_env import make_env
from diffusion_policy.gym_util.vector_env import VectorEnv
from diffusion_policy.spec.start import Start

_ROOT = Path(__file__).parents[1]


@case(
    "startup.first_step", "train.py, from the command to the first step", "s", target=6, slow=True
)
def first_step(options: Options) -> Iterator[Work]:
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        overrides = [f"hydra.run.dir={folder}/run", "training.resume=false"]

        def run() -> str:
            return subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "benchmarks.first_step",
                    "--config-name=train_dot_pusht",
                    *overrides,
                ],
                cwd=_ROOT,
                capture_output=True,
                text=True,
                check=True,
            ).stdout

        def check(output: str) -> None:
            assert output.endswith("first step done\n"), output

        yield Work(run, check)


@each(
    case(
        "startup.worker_keypoints",
        "memory of a worker process, PushT keypoints",
        "MB",
        target=80,
        arguments={"env_id": "diffusion_policy/PushTKeypoints-v0"},
    ),
    case(
        "startup.worker_image",
        "memory of a worker process, PushT images",
        "MB",
        target=80,
        arguments={"env_id": "diffusion_policy/PushTImage-v0"},
    ),
)
def worker_memory(options: Options, env_id: str) -> Iterator[Work]:
    """Measure after episodes of five environments; pages shared with other processes count."""
    slots = list(range(options.size(5, 1)))
    with VectorEnv({"id": env_id}, len(slots), n_workers=1, n_action_steps=1) as env:
        random = np.random.default_rng(0)
        targets = random.uniform(50, 450, (options.size(300, 2), len(slots), 1, 2))
        targets = targets.astype(np.float32)  # the dtype that workers receive

        def run() -> float:
            env.reset(slots, [Start.of_seed("test", seed) for seed in slots])
            for actions in targets:
                env.step(slots, actions)
            (pid,) = env.worker_pids
            return resident_mb(pid)

        def check(figure: float) -> None:
            """Compare the first slot with the same episode played in this process."""
            assert figure > 0
            alone = make_env({"id": env_id})
            observation, _ = alone.reset(seed=slots[0])
            for actions in targets:
                observation, *_ = alone.step(actions[0, 0])
            seen = env.observe(slots[:1])
            expected = observation if isinstance(observation, dict) else {"obs": observation}
            for key, value in expected.items():
                np.testing.assert_array_equal(seen[key][0, 0], value)

        yield Work(run, check)
