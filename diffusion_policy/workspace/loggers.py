"""Where the records of a run go: always to JSON lines, on request to wandb and TensorBoard."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_logger import JsonLogger

LOG_FILE = "logs.json.txt"


class RunLogger:
    """Logs records to every sink that ``cfg.logging`` asks for; a context manager.

    Args:
        output_dir: of the run.
        cfg: the whole config; ``logging.wandb`` holds wandb.init's arguments and ``mode``
            (disabled, offline or online), ``logging.tensorboard`` is a switch.
        keep: records of an earlier part of the run to keep, see :class:`JsonLogger`.
    """

    def __init__(self, output_dir: Path, cfg: DictConfig, keep: int = 0) -> None:
        self.path = output_dir / LOG_FILE
        self._json = JsonLogger(self.path, keep)
        self._wandb = _open_wandb(output_dir, cfg)
        self._tensorboard = _open_tensorboard(output_dir) if cfg.logging.tensorboard else None

    def log(self, record: dict[str, Any]) -> None:
        """Log one record; ``global_step`` is its position."""
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


def _open_wandb(output_dir: Path, cfg: DictConfig) -> Any:
    if cfg.logging.wandb.mode == "disabled":
        return None
    import wandb

    arguments = OmegaConf.to_container(cfg.logging.wandb, resolve=True)
    return wandb.init(
        dir=output_dir,
        config={**OmegaConf.to_container(cfg, resolve=True), "output_dir": str(output_dir)},
        **arguments,
    )


def _open_tensorboard(output_dir: Path) -> Any:
    try:
        module = importlib.import_module("torch.utils.tensorboard")
    except ImportError:
        raise UserError(
            "logging.tensorboard is true but tensorboard is not installed; "
            "pip install tensorboard or set it to false"
        ) from None
    return module.SummaryWriter(output_dir / "tensorboard")
