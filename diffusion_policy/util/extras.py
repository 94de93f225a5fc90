"""Packages that only some users need: the extras of pyproject.toml."""

from __future__ import annotations

import importlib
from types import ModuleType

from diffusion_policy.util.errors import UserError


def import_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a module of a package that may be absent.

    Args:
        module: full name, such as ``pyarrow.parquet``.
        extra: of pyproject.toml that installs it.
        purpose: what it is needed for, such as ``reading HDF5``.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise UserError(
            f"{purpose} needs {package}, which is not installed; "
            f"pip install 'diffusion_policy[{extra}]'"
        ) from None
