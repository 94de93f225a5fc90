"""The config of a run, beside its results."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from diffusion_policy.util.output_dir import write_atomically

RUN_CONFIG = Path(".hydra/config.yaml")
"""The resolved config of a run, in its output directory."""


def write_run_config(output_dir: Path, cfg: DictConfig) -> None:
    """Write ``.hydra/config.yaml``, resolved, and ``.hydra/overrides.yaml``.

    Hydra itself would write them before it is known whether another process holds the directory;
    call this once the directory is ours. Without a Hydra command there are no overrides.

    Raises:
        UserError: they cannot be written.
    """
    path = output_dir / RUN_CONFIG
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    write_atomically(path, OmegaConf.to_yaml(cfg, resolve=True).encode())
    write_atomically(path.with_name("overrides.yaml"), OmegaConf.to_yaml(list(overrides)).encode())


def resume_override(output_dir: Path) -> str:
    """What to add to the command of a run, or of the sweep it is a job of, to go on in place.

    It is quoted for a shell.
    """
    key, folder = "hydra.run.dir", output_dir
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        key, folder = "hydra.sweep.dir", Path(HydraConfig.get().sweep.dir)
    return shlex.quote(hydra_override(key, folder))


def hydra_override(key: str, path: Path) -> str:
    """``key=path`` as Hydra reads it, whatever the path holds."""
    text = str(path)
    if re.fullmatch(r"[A-Za-z0-9_/.-]+", text):
        return f"{key}={text}"
    # Hydra reads backslashes as such, but for those before a quote; "${" is an interpolation.
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return f"{key}='{escaped.replace('${', chr(92) + '${')}'"
