"""Checkpoints that survive: written whole or not at all, and read without running their contents.

A checkpoint is one file of tensors and plain values: a format name, the resolved config as YAML
text, and the state_dict of everything that a run must remember. The file is a zip archive with a
record for each tensor; the archive holds the CRC-32 of every record.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import PROTO, UnpicklingError
from typing import Any

import torch

from diffusion_policy.checkpoint.migration import migrate_config_text, migrate_state
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.output_dir import opened_atomically

FORMAT = "diffusion_policy/2"
# The state of the first format had the whole average, and other names for some counters.
_READABLE = (FORMAT, "diffusion_policy/1")
_PIECE = 1 << 20  # bytes; larger pieces are not faster
# What the pickle in a checkpoint may name, beside types of storage. torch allows more, such as
# bytearray, with which a few bytes ask for any amount of memory.
_NAMED = {
    "_codecs encode",  # of bytes
    "builtins set",
    "__builtin__ set",
    "collections Counter",
    "collections OrderedDict",
    "torch Size",
    "torch device",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor_v2",
}
# What zipfile, torch's reader and its unpickler raise for a file that is not as it was written.
_UNREADABLE = (
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    NotImplementedError,
    OverflowError,
)


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

    All of the file is read once, in small pieces, to compare its checksums. Tensors are mapped from
    the file; copy those that should outlive it.

    Raises:
        UserError: there is no such file, it is damaged, it was not written by this project, or its
            config is more than plain values.
    """
    return _load(path, is_checked=lambda record: True)


def peek_checkpoint(path: Path) -> dict[str, Any]:
    """What :func:`load_checkpoint` gives, to look at config and counters alone.

    That is cheap whatever the size: the tensors are neither read nor compared with their checksums.
    """
    return _load(path, is_checked=lambda record: "/data/" not in record)


def _load(path: Path, is_checked: Callable[[str], bool]) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(
            f"there is no checkpoint at {path}; give a .ckpt file or an exported folder"
        )
    try:
        _require_tensors_alone(path)
        _compare_checksums(path, is_checked)
        payload = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError:
        raise UserError(
            f"{path} holds pickled objects, so it was not written by this project, and loading it "
            "could run any code; import it with the import script of its origin instead"
        ) from None
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]  # torch's are long
        raise _damaged(path, reason or type(error).__name__) from None
    if not isinstance(payload, dict) or payload.get("format") not in _READABLE:
        found = payload.get("format") if isinstance(payload, dict) else type(payload).__name__
        raise UserError(
            f"{path} has format {found!r} and not {FORMAT!r}; use a checkpoint written by train.py"
        )
    config, state = payload.get("config"), payload.get("state")
    if not isinstance(config, str) or not isinstance(state, dict):
        raise _damaged(path, f"config is {type(config).__name__}, state is {type(state).__name__}")
    return {"config": migrate_config_text(config, path), "state": migrate_state(state)}


def _require_tensors_alone(path: Path) -> None:
    """Raise UnpicklingError if a pickle in the file names more than what makes tensors."""
    with path.open("rb") as file:
        if file.read(1) == PROTO:
            raise UnpicklingError  # torch reads such a file, too, but writes none any more
    with zipfile.ZipFile(path) as archive:
        for record in archive.namelist():
            if not record.lower().endswith("data.pkl"):
                continue
            for opcode, named, _ in pickletools.genops(archive.read(record)):
                is_storage = re.fullmatch(r"torch \w+Storage", str(named))
                if opcode.name == "STACK_GLOBAL" or (
                    opcode.name == "GLOBAL" and named not in _NAMED and not is_storage
                ):
                    raise UnpicklingError


def _compare_checksums(path: Path, is_checked: Callable[[str], bool]) -> None:
    """Raise BadZipFile if a record differs from its checksum."""
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED:
                raise zipfile.BadZipFile(f"{record.filename} is compressed")
            if is_checked(record.filename):
                with archive.open(record) as file:
                    while file.read(_PIECE):
                        pass


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} is damaged or not a checkpoint ({reason}); use another checkpoint of the run"
    )
