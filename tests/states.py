"""Compare the states and logs of runs."""

from __future__ import annotations

from pathlib import Path

import torch

from diffusion_policy.checkpoint.checkpoint_file import load_checkpoint
from diffusion_policy.util.json_logger import read_log


def assert_equal_states(left: object, right: object, path: str = "state") -> None:
    """Assert that nested dicts and lists are equal bit for bit."""
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), path
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), path
        for key in left:
            assert_equal_states(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), path
        for i, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_equal_states(a, b, f"{path}[{i}]")
    else:
        assert left == right, path


def final_state(output_dir: Path) -> dict:
    return load_checkpoint(output_dir / "checkpoints" / "latest.ckpt")["state"]


def comparable_log(output_dir: Path) -> list[dict]:
    """Return the log without paths, because they name the output directory."""
    return [
        {key: value for key, value in record.items() if not isinstance(value, str)}
        for record in read_log(output_dir / "logs.json.txt")
    ]
