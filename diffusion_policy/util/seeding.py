"""Seed the random generators that a run draws from."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators, on all devices."""
    _seed_python(seed)
    torch.manual_seed(seed)


def seed_step(seed: int, device: torch.device) -> None:
    """Do as :func:`seed_everything` for ``device`` alone; cheap enough for every step."""
    _seed_python(seed)
    for generator in torch_generators(device):
        generator.manual_seed(seed)


def torch_generators(device: torch.device) -> list[torch.Generator]:
    """Return the global generators that code on ``device`` draws from."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    elif device.type == "mps":
        generators.append(torch.mps._get_default_mps_generator())
    return generators


def _seed_python(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 -- libraries draw from the global generator
