"""Checkpoints that survive: written whole or not at all, and read without running their contents.

A checkpoint is one file of tensors and plain values: a format name, the resolved config as YAML
text, and the state_dict of everything that a run must remember.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from diffusion_policy.checkpoint.migration import migrate_config_text, migrate_state
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.output_dir import opened_atomically

FORMAT = "diffusion_policy/2"
# The state of the first format had the whole average, and other names for some counters.
_READABLE = (FORMAT, "diffusion_policy/1")


def save_checkpoint(path: Path, config: str, state: dict[str, Any]) -> None:
    """Write a checkpoint, one tensor after another: nothing is copied in memory.

    See :func:`opened_atomically` for what can go wrong.

    Args:
        config: the resolved config as YAML.
        state: nested dicts and lists of tensors, numbers, strings and None.
    """
    payload = {"format": FORMAT, "config": config, "state": state}
    with opened_atomically(path) as file:
        try:
            torch.save(payload, file)
        except RuntimeError as error:
            # torch's writer hides what the system said, such as that the disk is full.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_checkpoint(path: Path) -> dict[str, Any]:
    """``{"config": YAML text, "state": ...}`` of a checkpoint, in the form of this version.

    Tensors are mapped from the file: each is read when it is used, so looking at the config or at
    counters is cheap whatever the size. Copy those that should outlive the file.

    Raises:
        UserError: there is no such file, it is truncated, or it was not written by this project.
    """
    if not path.is_file():
        raise UserError(
            f"there is no checkpoint at {path}; give a .ckpt file or an exported folder"
        )
    try:
        # What is no zip file is not ours, but what it is decides the message.
        mappable = zipfile.is_zipfile(path)
        payload = torch.load(path, map_location="cpu", weights_only=True, mmap=mappable)
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
    if not isinstance(payload, dict) or payload.get("format") not in _READABLE:
        found = payload.get("format") if isinstance(payload, dict) else type(payload).__name__
        raise UserError(
            f"{path} has format {found!r} and not {FORMAT!r}; use a checkpoint written by train.py"
        )
    return {
        "config": migrate_config_text(payload["config"]),
        "state": migrate_state(payload["state"]),
    }
