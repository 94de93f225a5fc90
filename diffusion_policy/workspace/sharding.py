"""A model in several processes: copies (DDP), or divided among them (FSDP2) if it is large.

Checkpoints hold everything whole, so a run may go on with another number of processes, or
undivided.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from diffusion_policy.util import distributed
from diffusion_policy.util.errors import UserError


def distribute(
    model: nn.Module,
    average: nn.Module | None,
    device: torch.device,
    *,
    fsdp: bool,
    precision: str,
) -> nn.Module:
    """What computes the loss of a batch and, in backward, the gradients of all processes.

    Args:
        model: on ``device``; with ``fsdp`` on the CPU, and divided in place.
        average: of its weights, which ``fsdp`` divides too.
        precision: of matrix products.

    Raises:
        UserError: the settings need several processes, or do not go with them.
    """
    if not distributed.is_launched():
        if fsdp:
            raise UserError(
                "training.fsdp is true but this is a single process; start it by torchrun "
                "--nproc_per_node=N train.py ..., or set it to false"
            )
        return model
    if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()):
        raise UserError(
            "the policy has BatchNorm layers, and each process would take their statistics from "
            "its own rows; use policy.obs_encoder.group_norm=true, or a single process"
        )
    if not fsdp:
        return DistributedDataParallel(model)
    if precision == "fp16":
        raise UserError("training.precision is fp16 with training.fsdp=true; use bf16 or fp32")
    for module in (model, average):
        if module is not None:
            shard(module, device)
    return model


def shard(module: nn.Module, device: torch.device) -> None:
    """Divide the parameters of ``module`` in place, layer by layer, and move it to ``device``.

    The elements of every ModuleList are gathered one at a time when they compute, the rest of the
    module together. It must be called as ``module(...)`` to compute. A device never holds more of
    a module on the CPU than one layer and its own part of the others.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    containers = (nn.ModuleList, nn.ModuleDict)
    for part in reversed(list(module.modules())):  # inner ones first
        if isinstance(part, nn.ModuleList):
            for layer in part:
                if not isinstance(layer, containers) and any(True for _ in layer.parameters()):
                    fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)


def whole(state: Any, *, keep: bool = True) -> Any:
    """A nested state with every divided tensor put together, on the CPU.

    Processes exchange their parts, so all of them must call this.

    Args:
        keep: False gives None for these tensors, for processes that only help others.
    """
    if isinstance(state, dict):
        return {key: whole(value, keep=keep) for key, value in state.items()}
    if isinstance(state, list):
        return [whole(value, keep=keep) for value in state]
    if not isinstance(state, DTensor):
        return state
    tensor = state.full_tensor()
    return tensor.cpu() if keep else None


def divided_module_state(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The whole ``state`` of a module divided as the module is."""
    own = module.state_dict()
    return {key: _divided(value, own.get(key)) for key, value in state.items()}


def divided_optimizer_state(
    optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> dict[str, Any]:
    """The whole ``state`` of an optimiser divided as its parameters are."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    divided = {
        number: {
            name: _divided(value, parameters[number])
            if isinstance(value, Tensor) and value.shape == parameters[number].shape
            else value
            for name, value in entry.items()
        }
        for number, entry in state["state"].items()
    }
    return {**state, "state": divided}


def _divided(value: Tensor, like: Tensor | None) -> Tensor:
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
