"""A policy that came from another project's checkpoint, and how it becomes a checkpoint of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from diffusion_policy.checkpoint.checkpoint_file import save_checkpoint
from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.util.errors import UserError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ImportedPolicy:
    """Attributes: the config of a run with this policy, the policy, and remarks for its user."""

    cfg: DictConfig
    policy: BasePolicy
    remarks: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write a checkpoint that eval.py takes; it holds no optimiser."""
        state = {"model": self.policy.state_dict(), "ema_model": None}
        save_checkpoint(path, OmegaConf.to_yaml(self.cfg, resolve=True), state)


def shapes(weights: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Shape of each entry by name."""
    return {name: tuple(value.shape) for name, value in weights.items()}


def require_same_shapes(
    found: Mapping[str, Shape], expected: Mapping[str, Shape], source: str, remedy: str
) -> None:
    """Check that a file has exactly the entries of a policy.

    Args:
        found: of the file, by name.
        expected: of the policy, by name.
        source: the file, for the message.

    Raises:
        UserError: names the first entry that is missing, unknown or of another shape.
    """
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise UserError(
                f"{source}: {name} has shape {found.get(name, 'none')} in the file and "
                f"{expected.get(name, 'none')} in the policy; {remedy}"
            )
