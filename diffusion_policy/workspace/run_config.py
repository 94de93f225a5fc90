"""The config of a run, beside its results."""

from __future__ import annotations

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
    """What to add to the command of a run, or of the sweep it is a job of, to go on in place."""
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return f"hydra.sweep.dir={HydraConfig.get().sweep.dir}"
    return f"hydra.run.dir={output_dir}"
