"""Use a network for inference: during training without side effects, or compiled after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from diffusion_policy.util.seeding import torch_generators


@contextmanager
def undisturbed(module: nn.Module, device: torch.device, seed: int) -> Iterator[None]:
    """Run the block in evaluation mode, without gradients, with random numbers from ``seed``.

    Afterwards every submodule has its former mode (a frozen part may have been in evaluation mode
    before), and torch's generators on ``device`` and the CPU have their former state.
    """
    modes = {part: part.training for part in module.modules()}
    generators = torch_generators(device)
    states = [generator.get_state() for generator in generators]
    try:
        module.eval()
        for generator in generators:
            generator.manual_seed(seed)
        # Not inference_mode: tensors that a network caches here must remain usable in training.
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def compiled(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """Compile ``function`` for inference with one batch size and final weights.

    On the CPU the weights become constants of the compiled code, in its memory layout, and the
    wrapper is C++, too. On a GPU the code would run as one CUDA graph; this was not tried.
    """
    if device.type == "cpu":
        options: dict[str, Any] = {"freezing": True, "cpp_wrapper": True}
        return torch.compile(function, dynamic=False, options=options)
    return torch.compile(function, dynamic=False, mode="reduce-overhead")
