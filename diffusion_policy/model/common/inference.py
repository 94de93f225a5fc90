"""Using a network: in the middle of training without a trace on it, and compiled after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from diffusion_policy.util.seeding import torch_generators


@contextmanager
def undisturbed(module: nn.Module, device: torch.device, seed: int) -> Iterator[None]:
    """In the block: evaluation mode, no gradients, random numbers of ``device`` from ``seed``.

    Afterwards every submodule is in the mode it was in (a frozen part may have been in
    evaluation mode already), and torch's random numbers go on as if nothing had happened.
    """
    modes = {part: part.training for part in module.modules()}
    generators = torch_generators(device)
    states = [generator.get_state() for generator in generators]
    try:
        module.eval()
        for generator in generators:
            generator.manual_seed(seed)
        # Not inference_mode: what a network caches in here must remain usable in training.
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def compiled(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """``function`` by torch.compile, for inference with one size of batch and final weights.

    On the CPU the weights become constants of the compiled code, laid out for it, and the code is
    C++ throughout; on a GPU it would run as one CUDA graph, which was not tried.
    """
    if device.type == "cpu":
        options = {"freezing": True, "cpp_wrapper": True}
        return torch.compile(function, dynamic=False, options=options)
    return torch.compile(function, dynamic=False, mode="reduce-overhead")
