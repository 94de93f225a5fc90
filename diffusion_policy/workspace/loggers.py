"""Where a run logs: always to a file of JSON lines, on request to wandb and TensorBoard too."""

from __future__ import annotations

import importlib
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_policy.util.atomic_file import sync
from diffusion_policy.util.errors import UserError, one_line, writing
from diffusion_policy.util.json_logger import JsonLogger
from diffusion_policy.util.output_dir import write_atomically

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

    Attributes:
        n_kept: number of records kept.
    """

    def __init__(self, output_dir: Path, cfg: DictConfig, keep: int = 0) -> None:
        self.path = output_dir / LOG_FILE
        self._json = JsonLogger(self.path, keep)
        self.n_kept = self._json.n_kept
        if self.n_kept < keep:
            print(
                f"warning   {self.path} holds {self.n_kept} of the {keep} records that the "
                "checkpoint counts; the others are lost, as in a power cut, but the weights are not"
            )
        settings: Any = OmegaConf.to_container(cfg, resolve=True)
        wandb = {**settings["logging"]["wandb"]}
        if wandb["mode"] != "disabled":
            wandb.setdefault("id", _wandb_id(output_dir, goes_on=self.n_kept > 0))
            wandb.setdefault("resume", "allow")
        self._wandb = open_wandb(output_dir, {**settings, "output_dir": str(output_dir)}, **wandb)
        self._tensorboard = _open_tensorboard(output_dir) if cfg.logging.tensorboard else None

    def log(self, record: dict[str, Any]) -> None:
        """Log one record, which holds its ``global_step``."""
        self._json.log(record)
        step = record["global_step"]
        numbers = {key: value for key, value in record.items() if not isinstance(value, str)}
        if self._wandb is not None:
            self._wandb.log({**numbers, **_wandb_videos(record)}, step=step)
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


def sync_log(output_dir: Path) -> None:
    """Have the disk hold all records that were logged in ``output_dir``.

    Raises:
        UserError: it cannot.
    """
    path = output_dir / LOG_FILE
    if path.is_file():
        with writing(path):
            sync(path)


def open_wandb(directory: Path, config: Mapping[str, Any], *, mode: str, **arguments: Any) -> Any:
    """Start a wandb run that keeps its files in ``directory``.

    Args:
        config: what wandb shows as the config of the run.
        mode: disabled, offline, or online for users who are logged in.
        arguments: further arguments of wandb.init.

    Returns:
        The wandb run, or None if it is disabled.

    Raises:
        UserError: wandb is not installed, refuses an argument, or nobody is logged in.
    """
    if mode == "disabled":
        return None
    try:
        wandb = importlib.import_module("wandb")
    except ImportError:
        raise UserError(
            f"wandb is {mode} but not installed; pip install wandb or set its mode to disabled"
        ) from None
    try:
        return wandb.init(dir=directory, config=dict(config), mode=mode, **arguments)
    except (wandb.Error, TypeError, ValueError) as error:
        reason = one_line(error)[:200]
        raise UserError(
            f"wandb cannot start ({reason}); log in with wandb login, or set its mode to offline"
        ) from error


def _wandb_id(output_dir: Path, *, goes_on: bool) -> str:
    """The id of the run at wandb, kept in a file, so that a run that goes on does so there, too.

    Args:
        goes_on: False forgets the id of an earlier start, whose records are not kept.

    Raises:
        UserError: the file is damaged or cannot be written.
    """
    path = output_dir / "wandb" / "id.txt"
    if not (goes_on and path.is_file()):
        write_atomically(path, secrets.token_hex(4).encode())
    identity = path.read_bytes().decode(errors="replace").strip()
    if not re.fullmatch(r"[\w-]{1,128}", identity):
        raise UserError(f"{path} is damaged; write the id of the wandb run there, or delete it")
    return identity


def _wandb_videos(record: Mapping[str, Any]) -> dict[str, Any]:
    """The videos that a record names, for wandb to show."""
    wandb = importlib.import_module("wandb")
    return {
        key: wandb.Video(value, format="mp4")
        for key, value in record.items()
        if isinstance(value, str) and value.endswith(".mp4") and Path(value).is_file()
    }


def _open_tensorboard(output_dir: Path) -> Any:
    try:
        module = importlib.import_module("torch.utils.tensorboard")
    except ImportError:
        raise UserError(
            "logging.tensorboard is true but tensorboard is not installed; "
            "pip install tensorboard or set it to false"
        ) from None
    return module.SummaryWriter(output_dir / "tensorboard")
