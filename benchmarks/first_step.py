"""Run train.py up to its first step: ``python -m benchmarks.first_step --config-name=...``."""

from __future__ import annotations

import os
from typing import Any

import train
from diffusion_policy.workspace.train_workspace import TrainWorkspace

_train_step = TrainWorkspace.train_step


def _step_and_end(workspace: TrainWorkspace, batches: Any) -> None:
    _train_step(workspace, batches)
    print("first step done", flush=True)
    os._exit(0)  # skip the work at the end of a run


if __name__ == "__main__":
    TrainWorkspace.train_step = _step_and_end
    train.main()
