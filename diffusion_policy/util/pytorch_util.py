"""Small helpers for nested tensors, devices and parameter counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_policy.util.errors import UserError


def dict_apply(x: dict[str, Any], function: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """Apply ``function`` to every tensor of a nested dict; lists of texts stay as they are."""
    return {
        key: dict_apply(value, function)
        if isinstance(value, dict)
        else value
        if isinstance(value, list)
        else function(value)
        for key, value in x.items()
    }


def flat_steps(x: Tensor) -> Tensor:
    """(B, T, ...) -> (B, T, numbers of a step); a scalar a step is one number."""
    return x.reshape(*x.shape[:2], -1)


def split_rows(tree: Any, n: int) -> list[Any]:
    """Split every tensor of a tree into ``n`` equal parts by rows; return ``n`` trees.

    Args:
        tree: tensors (N, ...) and None in lists and (named) tuples; n divides N.
    """
    if tree is None:
        return [None] * n
    if isinstance(tree, Tensor):
        return list(tree.chunk(n))
    parts = zip(*(split_rows(branch, n) for branch in tree), strict=True)
    make = getattr(type(tree), "_make", type(tree))
    return [make(part) for part in parts]


def resolve_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` is CUDA if present, else MPS, else the CPU.

    Raises:
        UserError: the named device does not exist on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"device {name!r} cannot be used ({reason}); use auto, cpu or a device that is present"
        ) from None
    return device


AUTOCAST_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Type of matrix products by ``training.precision``; None keeps float32."""


def resolve_precision(name: str, device: torch.device) -> str:
    """Resolve ``auto`` to bf16 if the device multiplies bfloat16 matrices natively, else to fp32.

    Raises:
        UserError: the name is neither auto nor one of :data:`AUTOCAST_DTYPES`.
    """
    if name == "auto":
        if device.type == "cpu":
            # A private function of torch; without it, assume fp32.
            native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        else:
            native = device.type == "cuda" and torch.cuda.is_bf16_supported(
                including_emulation=False
            )
        return "bf16" if native else "fp32"
    if name not in AUTOCAST_DTYPES:
        raise UserError(f"training.precision is {name!r}; use auto, {', '.join(AUTOCAST_DTYPES)}")
    return name


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Return the numbers of trainable and of all parameters of a module."""
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    return sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes)
