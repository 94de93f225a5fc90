"""Weights in ``.safetensors`` files; reading one runs no code.

The format has no checksum, so a file that this project writes holds one among its metadata: the
CRC-32 of the name, type, shape and bytes of all tensors. It is compared on reading. Files without
one, of other programs and of earlier versions, are read as they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diffusion_policy.util.errors import UserError

WEIGHTS_SUFFIX = ".safetensors"
_CHECKSUM = "crc32"


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
    return save(own, metadata={**(facts or {}), _CHECKSUM: _checksum(own)})


def _checksum(weights: Mapping[str, Tensor]) -> str:
    checksum = 0
    for name in sorted(weights):
        tensor = weights[name]
        checksum = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), checksum)
        # Through uint8, because numpy does not know all types of torch.
        checksum = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, checksum)
    return f"{checksum:08x}"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a file to the CPU.

    Raises:
        UserError: the file is missing, unreadable or damaged.
    """
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder; give the path of a weights file")
        with safe_open(path, "pt") as file:
            written = (file.metadata() or {}).get(_CHECKSUM)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no dict
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
    if written is not None and written != _checksum(weights):
        raise UserError(
            f"{path} is damaged: its weights are not those that were written; download or export "
            "it again"
        )
    return weights
