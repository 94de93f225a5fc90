"""Read a torch file that holds pickled objects without running what it names.

A pickle names functions and classes, and reading it calls them. Here nothing is looked up but what
builds tensors; everything else becomes an :class:`Inert`, which keeps its data and does nothing.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch._utils import _rebuild_parameter, _rebuild_tensor_v2

from diffusion_policy.util.errors import UserError


class Inert:
    """Stands for an object of any class; ``state`` is the data that the file gives it."""

    state: Any = None

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Arguments of whatever it stands for are left aside."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def _ignore(self, *_args: Any) -> None:
        pass

    # What a pickle may call on subclasses of dict, list and set.
    __setitem__ = append = extend = add = _ignore


class _Unpickler(pickle.Unpickler):
    # Storages are not here: torch turns their names into types before it asks.
    _KNOWN: ClassVar = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    }

    def find_class(self, module: str, name: str) -> Any:
        known = self._KNOWN.get((module, name))
        return known or type(name, (Inert,), {"__module__": module})


class _InertPickle:
    """What torch.load takes for a pickle module."""

    Unpickler = _Unpickler


def load_inert(path: Path) -> Any:
    """Contents of a file written by ``torch.save`` with any pickle module, tensors on the CPU.

    Tensors are read when they are used, so parts left aside cost no memory.

    Raises:
        UserError: there is no such file, or it is not one of torch's.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint at {path}; give the path of a .ckpt file")
    try:
        with zipfile.ZipFile(path) as archive:
            # torch.load would hand a compiled program to another reader.
            if any(Path(name).name == "constants.pkl" for name in archive.namelist()):
                raise UserError(f"{path} is a compiled program; give a checkpoint of a training")
        return torch.load(
            path, map_location="cpu", pickle_module=_InertPickle, weights_only=False, mmap=True
        )
    except UserError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} is truncated or not a checkpoint of torch ({reason}); check the download"
        ) from None


def plain(value: Any) -> Any:
    """omegaconf's containers and nodes, read as :class:`Inert`, as dicts, lists and values."""
    if isinstance(value, Inert) and isinstance(value.state, dict):
        for field in ("_content", "_val"):  # of a container, of a single value
            if field in value.state:
                return plain(value.state[field])
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
