"""What made a result: command, commit and machine. With them a reader can make it again.

torch and Hydra are imported late, so that code which only reads records loads neither.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

from diffusion_policy.util.cores import usable_cores

_ROOT = Path(__file__).parents[2]


def command_line() -> str:
    """The command that started this process, quoted for a shell.

    Several jobs of a sweep may run in one process. For such a job it is the command that starts
    this job alone, without the sweep's options of Hydra.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from diffusion_policy.util import distributed

    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        hydra = HydraConfig.get()
        words = ["train.py", f"--config-name={hydra.job.config_name}", *hydra.overrides.task]
    processes = distributed.n_local_processes()
    start = ["torchrun", f"--nproc_per_node={processes}"] if processes > 1 else ["python"]
    return shlex.join([*start, *words])


def commit() -> str:
    """The commit of the code, with ``-dirty`` if tracked files differ from it.

    ``unknown`` if the package does not lie in a repository of its own.
    """
    if not (_ROOT / ".git").exists():
        return "unknown"
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def machine() -> str:
    """Processor, cores that this process may use, and GPU."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{cpu_name()}, {usable_cores()} of {os.cpu_count()} cores, {gpu}"


def cpu_name() -> str:
    """Model name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
