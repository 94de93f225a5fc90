"""Helpers that users of the original diffusion_policy import; the package needs but dict_apply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_policy.util.pytorch_util import dict_apply as dict_apply


def pad_remaining_dims(x: Tensor, target: Tensor) -> Tensor:
    """``x``, whose axes are the first of ``target``, with axes of size 1 for the others."""
    if x.shape != target.shape[: x.ndim]:
        raise ValueError(f"shape {tuple(x.shape)} does not begin shape {tuple(target.shape)}")
    return x.reshape(*x.shape, *[1] * (target.ndim - x.ndim))


def dict_apply_split(
    x: Mapping[str, Any], split_func: Callable[[Any], Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """``{part: {key: value}}``, where ``split_func`` gives each value's parts by name."""
    parts: dict[str, dict[str, Any]] = {}
    for key, value in x.items():
        for name, part in split_func(value).items():
            parts.setdefault(name, {})[key] = part
    return parts


def dict_apply_reduce(
    x: Sequence[Mapping[str, Any]], reduce_func: Callable[[list[Any]], Any]
) -> dict[str, Any]:
    """Per key of the first dict, ``reduce_func`` of the values that all dicts have there."""
    return {key: reduce_func([each[key] for each in x]) for key in x[0]}


def replace_submodules(
    root_module: nn.Module,
    predicate: Callable[[nn.Module], bool],
    func: Callable[[nn.Module], nn.Module],
) -> nn.Module:
    """``root_module`` with ``func(module)`` in place of each module that ``predicate`` chooses."""
    if predicate(root_module):
        return func(root_module)
    for name, child in root_module.named_children():
        setattr(root_module, name, replace_submodules(child, predicate, func))
    return root_module


def optimizer_to(
    optimizer: torch.optim.Optimizer, device: torch.device | str
) -> torch.optim.Optimizer:
    """``optimizer`` with its state moved to ``device``, in place."""
    for state in optimizer.state.values():
        state.update({k: v.to(device) for k, v in state.items() if isinstance(v, Tensor)})
    return optimizer
