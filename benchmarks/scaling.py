"""Measure training steps per second by number of processes, for the table in docs/training.md.

``torchrun --nproc_per_node=2 -m benchmarks.scaling --config-name=train_dot_pusht [key=value ...]``

A step is a step of the training loop on the config's demonstrations: batch, optimiser and weight
averaging, without rollouts and logs. The command also prints the last loss, which must not depend
on the number of processes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import torch
from hydra import compose, initialize_config_module

from diffusion_policy.util import distributed
from diffusion_policy.util.errors import reports_user_errors
from diffusion_policy.workspace.train_workspace import TrainWorkspace

WARM_UP = 5


@reports_user_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-name", default="train_dot_pusht")
    parser.add_argument("--n-steps", type=int, default=60, help="number of timed steps")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    with initialize_config_module("diffusion_policy.config", version_base="1.3"):
        cfg = compose(arguments.config_name, overrides=arguments.overrides)
    with tempfile.TemporaryDirectory() as folder:
        workspace = TrainWorkspace(cfg, folder)
        steps = iter(workspace._rest_of_epoch())
        for _ in range(WARM_UP):
            workspace.train_step(next(steps))
        seconds = []
        for _ in range(arguments.n_steps):
            batches = next(steps)
            started = time.perf_counter()
            loss = workspace.train_step(batches)
            if workspace.device.type == "cuda":
                torch.cuda.synchronize(workspace.device)
            seconds.append(time.perf_counter() - started)
        if distributed.is_main():
            median, worst = statistics.median(seconds), max(seconds)
            print(
                f"{arguments.config_name}: {distributed.n_processes()} x {workspace.device}, "
                f"{torch.get_num_threads()} threads each, {workspace.precision}: "
                f"{1000 * median:.0f} ms a step (worst {1000 * worst:.0f}), "
                f"{1 / median:.2f} steps/s, last loss {loss:.6f}"
            )


if __name__ == "__main__":
    main()
