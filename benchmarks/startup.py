"""Starting: from the command to the first training step, and what a worker process weighs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.case import Options, Work, case, each
from benchmarks.memory import resident_mb
from diffusion_policy.gym_util.vector_env import VectorEnv

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
        "memory of a worker process, PushT pictures",
        "MB",
        target=80,
        arguments={"env_id": "diffusion_policy/PushTImage-v0"},
    ),
)
def worker_memory(options: Options, env_id: str) -> Iterator[Work]:
    """After episodes of five environments; pages that it shares with other processes count."""
    slots = list(range(options.size(5, 1)))
    with VectorEnv({"id": env_id}, len(slots), n_workers=1, n_action_steps=1) as env:

        def run() -> float:
            env.reset(slots, slots)
            for _ in range(options.size(300, 2)):
                env.step(slots, env.action_space.high[None, None].repeat(len(slots), axis=0) / 2)
            (pid,) = env.worker_pids
            return resident_mb(pid)

        yield Work(run, lambda figure: None)
