"""Where a run logs: always to a file of JSON lines, on request to wandb and TensorBoard too."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_logger import JsonLogger

LOG_FILE = "logs.json.txt"
LOGGING_KEYS = ("tensorboard", "wandb")
"""Keys of ``logging``; what stands under ``wandb`` are wandb.init's arguments, which it checks."""


class RunLogger:
    """Logs records to all that ``cfg.logging`` asks for; a context manager.

    Args:
        output_dir: output directory of the run.
        cfg: the whole config. ``logging.wandb`` holds arguments of wandb.init, among them ``mode``
            (disabled, offline or online); ``logging.tensorboard`` is a bool.
        keep: number of records to keep from an earlier part of the run, see :class:`JsonLogger`.
    """

    def __init__(self, output_dir: Path, cfg: DictConfig, keep: int = 0) -> None:
        self.path = output_dir / LOG_FILE
        self._json = JsonLogger(self.path, keep)
        settings: Any = OmegaConf.to_container(cfg, resolve=True)
        self._wandb = open_wandb(
            output_dir, {**settings, "output_dir": str(output_dir)}, **settings["logging"]["wandb"]
        )
        self._tensorboard = _open_tensorboard(output_dir) if cfg.logging.tensorboard else None

    def log(self, record: dict[str, Any]) -> None:
        """Log one record, which holds its ``global_step``."""
        self._json.log(record)
        step = record["global_step"]
        numbers = {key: value for key, value in record.items() if not isinstance(value, str)}
        if self._wandb is not None:
            self._wandb.log(numbers, step=step)
        if self._tensorboard is not None:
            for key, value in numbers.items():
                self._tensorboard.add_scalar(key, value, step)

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(self, *error: object) -> None:
        self._json.__exit__()
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if error[0] is None else 1)
        if self._tensorboard is not None:
            self._tensorboard.close()


def open_wandb(directory: Path, config: Mapping[str, Any], *, mode: str, **arguments: Any) -> Any:
    """Start a wandb run that keeps its files in ``directory``.

    Args:
        config: what wandb shows as the config of the run.
        mode: disabled, offline, or online for users who are logged in.
        arguments: further arguments of wandb.init.

    Returns:
        The wandb run, or None if it is disabled.
    """
    if mode == "disabled":
        return None
    import wandb

    return wandb.init(dir=directory, config=dict(config), **{"mode": mode, **arguments})


def _open_tensorboard(output_dir: Path) -> Any:
    try:
        module = importlib.import_module("torch.utils.tensorboard")
    except ImportError:
        raise UserError(
            "logging.tensorboard is true but tensorboard is not installed; "
            "pip install tensorboard or set it to false"
        ) from None
    return module.SummaryWriter(output_dir / "tensorboard")
