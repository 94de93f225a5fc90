"""Weights as a ``.safetensors`` file, which runs nothing when it is read."""

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
    """The contents of a file of these weights.

    Args:
        facts: kept beside them, to be read by people.
    """
    # Copied: safetensors takes neither views nor other memory formats.
    own = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in weights.items()
    }
    return save(own, metadata=None if facts is None else dict(facts))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a file, on the CPU.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder; give the path of a file of weights")
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give the path of a file of weights") from None
    except PermissionError:
        raise UserError(f"{path} may not be read; ask its owner, or copy it") from None
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} is damaged or no safetensors file ({error}); get it again"
        ) from None
