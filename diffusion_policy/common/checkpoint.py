"""Checkpoints that survive: written whole or not at all, and read without running their contents.

A checkpoint is one file of tensors and plain values: a format name, the resolved config as YAML
text, and the state_dict of everything that a run must remember.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from diffusion_policy.common.atomic_file import replacing
from diffusion_policy.common.errors import UserError
from diffusion_policy.common.output_dir import writing

FORMAT = "diffusion_policy/1"


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a file so that a reader, or a crash, sees the old contents or the new, never a part.

    Raises:
        UserError: it cannot be written (disk full, no permission); the old file is untouched.
    """
    with writing(path, atomic=True), replacing(path) as partial:
        partial.write_bytes(data)


def save_checkpoint(path: Path, config: str, state: dict[str, Any]) -> None:
    """Write a checkpoint; see :func:`write_atomically` for what can go wrong.

    Args:
        config: the resolved config as YAML.
        state: nested dicts and lists of tensors, numbers, strings and None.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "config": config, "state": state}, buffer)
    write_atomically(path, buffer.getbuffer())


def load_checkpoint(path: Path, map_location: torch.device | str = "cpu") -> dict[str, Any]:
    """``{"config": YAML text, "state": ...}`` of a checkpoint.

    Raises:
        UserError: there is no such file, it is truncated, or it was not written by this project.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint at {path}; give the path of a .ckpt file")
    try:
        payload = torch.load(path, map_location=map_location, weights_only=True)
    except UnpicklingError:
        raise UserError(
            f"{path} holds pickled objects, so it was not written by this project, and loading it "
            "could run any code; import it with the import script of its origin instead"
        ) from None
    except (RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} is truncated or not a checkpoint ({reason}); use another checkpoint of the run"
        ) from None
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        found = payload.get("format") if isinstance(payload, dict) else type(payload).__name__
        raise UserError(
            f"{path} has format {found!r} and not {FORMAT!r}; use a checkpoint written by train.py"
        )
    return payload


class TopKCheckpoints:
    """Keeps the k best checkpoints of a run beside the latest.

    Args:
        directory: where they lie.
        monitor_key: metric to rank by, ``/`` written as ``_``.
        mode: ``max`` or ``min``.
        k: how many to keep; 0 keeps none.
        format_str: file name from the metrics.
    """

    def __init__(
        self,
        directory: Path,
        monitor_key: str = "test_mean_score",
        mode: str = "max",
        k: int = 5,
        format_str: str = "epoch={epoch:04d}-test_mean_score={test_mean_score:.3f}.ckpt",
    ) -> None:
        if mode not in ("max", "min"):
            raise UserError(f"checkpoint.topk.mode is {mode!r}; use max or min")
        self.directory = directory
        self.monitor_key = monitor_key
        self.mode = mode
        self.k = k
        self.format_str = format_str
        self.best: dict[str, float] = {}

    def consider(self, metrics: dict[str, Any]) -> str | None:
        """The file name to keep the checkpoint of these metrics under, or None.

        Call :meth:`keep` once that checkpoint is written.
        """
        named = {key.replace("/", "_"): value for key, value in metrics.items()}
        if self.k == 0 or self.monitor_key not in named:
            return None
        value = float(named[self.monitor_key])
        name = self.format_str.format(**named)
        ranked = sorted(
            {**self.best, name: value}.items(), key=lambda item: item[1], reverse=self.mode == "max"
        )
        self.best = dict(ranked[: self.k])
        return name if name in self.best else None

    def keep(self, latest: Path, name: str) -> None:
        """Keep the checkpoint at ``latest`` as ``name`` and delete those that fell out."""
        partial = self.directory / f"{name}.tmp"
        partial.unlink(missing_ok=True)
        try:
            # A second name for the same file: latest is replaced, never written into.
            partial.hardlink_to(latest)
        except OSError:
            shutil.copyfile(latest, partial)
        partial.replace(self.directory / name)
        self._delete_others()

    def _delete_others(self) -> None:
        for path in self.directory.glob("*.ckpt"):
            if path.name not in self.best and path.name != "latest.ckpt":
                path.unlink()

    def state_dict(self) -> dict[str, Any]:
        return {"best": dict(self.best)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = dict(state["best"])

    def repair(self, latest: Path, name: str | None) -> None:
        """After a crash between writing ``latest`` and keeping it as ``name``: finish that."""
        if name is not None and not (self.directory / name).is_file():
            self.keep(latest, name)
        self.best = {n: v for n, v in self.best.items() if (self.directory / n).is_file()}
