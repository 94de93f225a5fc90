"""Weights in ``.safetensors`` files; reading one runs no code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from diffusion_policy.util.errors import UserError

WEIGHTS_SUFFIX = ".safetensors"


def weights_bytes(weights: Mapping[str, Tensor], facts: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes of a ``.safetensors`` file with these weights.

    Args:
        facts: metadata for human readers.
    """
    # A copy, because safetensors accepts neither views nor other memory formats.
    own = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in weights.items()
    }
    return save(own, metadata=None if facts is None else dict(facts))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a file to the CPU.

    Raises:
        UserError: the file is missing, unreadable or damaged.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder; give the path of a weights file")
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give the path of a weights file") from None
    except PermissionError:
        raise UserError(
            f"no permission to read {path}; change its permissions or use a copy"
        ) from None
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} is damaged or is not a safetensors file ({error}); download or export it again"
        ) from None
