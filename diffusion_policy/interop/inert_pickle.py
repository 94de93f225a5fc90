"""Read a torch file that holds pickled objects without running what it names.

A pickle names functions and classes, and a reader calls them. This reader looks up only what builds
tensors. Every other name becomes an :class:`Inert`, which keeps its data and does nothing.
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
        """Ignore the arguments of the object that it stands for."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def _ignore(self, *_args: Any) -> None:
        pass

    # A pickle may call these on subclasses of dict, list and set.
    __setitem__ = append = extend = add = _ignore


class _Unpickler(pickle.Unpickler):
    # Storages are missing here because torch turns their names into types itself.
    _KNOWN: ClassVar = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    }

    def find_class(self, module: str, name: str) -> Any:
        known = self._KNOWN.get((module, name))
        return known or type(name, (Inert,), {"__module__": module})


class _InertPickle:
    """Stands for the pickle module in torch.load."""

    Unpickler = _Unpickler


def load_inert(path: Path) -> Any:
    """Contents of a file written by ``torch.save`` with any pickle module, tensors on the CPU.

    Tensors are read when they are used, so parts that nobody uses cost no memory.

    Raises:
        UserError: the file is missing, or torch did not write it.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint at {path}; give the path of a .ckpt file")
    try:
        with zipfile.ZipFile(path) as archive:
            # torch.load would pass a compiled program to another reader, which runs it.
            if any(Path(name).name == "constants.pkl" for name in archive.namelist()):
                raise UserError(f"{path} is a compiled program; give a training checkpoint")
            if damaged := archive.testzip():  # torch.load compares no checksums
                raise UserError(f"{path} is damaged at {damaged}; check the download")
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
    """Dicts, lists and values from omegaconf's containers and nodes, read as :class:`Inert`."""
    if isinstance(value, Inert) and isinstance(value.state, dict):
        for field in ("_content", "_val"):  # of a container, of a single value
            if field in value.state:
                return plain(value.state[field])
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
