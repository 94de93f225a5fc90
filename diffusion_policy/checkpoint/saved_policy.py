"""The policy of a checkpoint, to act, to be changed and to be shared: without its run."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from diffusion_policy.checkpoint.checkpoint_file import load_checkpoint, peek_checkpoint
from diffusion_policy.checkpoint.config_changes import change_settings
from diffusion_policy.checkpoint.policy_folder import load_policy_folder
from diffusion_policy.checkpoint.size_limit import SizeLimit
from diffusion_policy.checkpoint.trust import section_to_build
from diffusion_policy.model.diffusion.ema_model import merged_state
from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.policy.build_policy import build_policy
from diffusion_policy.transforms.pipeline import Pipeline
from diffusion_policy.util.config import declared, shown
from diffusion_policy.util.errors import UserError, one_line, user_message


@dataclass(frozen=True)
class SavedPolicy:
    """What a checkpoint, or an exported folder, holds of a policy.

    Attributes:
        source: where it lies.
        cfg: config of its run, without interpolations.
        weights: its state_dict, of the averaged policy where the run kept one.
        n_steps: optimiser steps that it was trained for; None where that is not told, as by an
            exported folder or an import.
    """

    source: Path
    cfg: DictConfig
    weights: dict[str, Tensor]
    n_steps: int | None

    @classmethod
    def read(cls, source: str | Path) -> SavedPolicy:
        """Read a file written by train.py or by an import, or an exported folder.

        Raises:
            UserError: it cannot be read, or holds no policy.
        """
        path = Path(source)
        payload = load_policy_folder(path) if path.is_dir() else load_checkpoint(path)
        state = payload["state"]
        model, average = state.get("model"), state.get("ema_model")
        parts = [part for part in (model, average) if part is not None]
        if not parts or not all(isinstance(part, Mapping) for part in parts):
            raise UserError(f"{source} holds no policy; use a checkpoint written by train.py")
        weights = merged_state(model or {}, average)
        for name, weight in weights.items():
            if not isinstance(weight, Tensor):
                raise UserError(
                    f"{source} holds {shown(weight)} as the weights {name}; use a checkpoint "
                    "written by train.py"
                )
        cfg = OmegaConf.create(payload["config"])
        n_steps = state.get("global_step")
        return cls(path, cfg, weights, n_steps if isinstance(n_steps, int) else None)

    def build(self, device: torch.device | str = "cpu", *, trust: bool = False) -> BasePolicy:
        """The policy, ready to act.

        Args:
            trust: build whatever the file's config names, and not this package's policies alone.
                That runs any code that the maker of the file chose.

        Raises:
            UserError: its config names a foreign policy untrusted, cannot be built, or does not
                fit the weights.
        """
        content = section_to_build(self.cfg, "policy", trust=trust)
        cfg = without_weights(OmegaConf.create({"policy": content}))
        pipeline = self.pipeline(trust=trust)
        spec = None if pipeline is None else pipeline.spec
        if trust:  # whatever goes wrong may be in code of the user's own
            policy = build_policy(cfg.policy, spec)
        else:
            with self._refusing(), SizeLimit(self.source, cfg, self.weights):
                policy = build_policy(cfg.policy, spec)
        try:
            policy.load_state_dict(self.weights)
        except (RuntimeError, TypeError, AttributeError) as error:
            reason = one_line(error)[:300]
            raise UserError(
                f"{self.source} does not fit its config ({reason}); it was written by another "
                "version of the policy, or an override changes its network: leave that out"
            ) from error
        policy.to(device).eval()
        policy.prepare_for_inference()
        return policy

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Tell what the block, which builds, makes of settings that make no sense."""
        try:
            yield
        except Exception as error:
            if user_message(error) is not None:
                raise
            reason = one_line(error.__cause__ or error)[:300]
            raise UserError(
                f"the policy of {self.source} cannot be built ({reason}); "
                "correct its config, or take another file"
            ) from error

    def pipeline(self, *, trust: bool = False) -> Pipeline | None:
        """What lies between raw data and the policy; None where the file tells of no task.

        Args:
            trust: see :meth:`build`.

        Raises:
            UserError: its config names a foreign transform untrusted, or one that does not fit.
        """
        task = self.cfg.get("task") or {}
        if "shape_meta" not in task:
            return None
        transforms = section_to_build(self.cfg, "task.transforms", trust=trust)
        return Pipeline.of_task({**task, "transforms": transforms})


def saved_config(source: str | Path) -> DictConfig:
    """Config of what :meth:`SavedPolicy.read` reads; the weights of a checkpoint are not read.

    Raises:
        UserError: see :meth:`SavedPolicy.read`.
    """
    path = Path(source)
    payload = load_policy_folder(path) if path.is_dir() else peek_checkpoint(path)
    return OmegaConf.create(payload["config"])


def without_weights(cfg: DictConfig) -> DictConfig:
    """A copy of a run's config whose policy fetches no weights, because a file brings them."""
    cfg = copy.deepcopy(cfg)
    for section, values in declared(cfg, "policy", "weight_settings"):
        OmegaConf.update(cfg, section, dict(values), force_add=True)
    return cfg


def load_policy(
    checkpoint: str | Path,
    device: torch.device | str = "cpu",
    *,
    overrides: Sequence[str] = (),
    trust: bool = False,
) -> tuple[BasePolicy, DictConfig]:
    """The policy of a checkpoint, ready to act, and the resolved config of its run.

    Nothing but the checkpoint is needed.

    Args:
        checkpoint: see :meth:`SavedPolicy.read`.
        overrides: ``key=value`` changes to settings of that config that leave the weights as they
            are: ``policy.noise_scheduler.num_inference_steps=10``; ``+key=value`` adds one that
            the run did not name, such as one that came later.
        trust: see :meth:`SavedPolicy.build`.

    Raises:
        UserError: the checkpoint cannot be read, holds no policy, names a foreign one untrusted,
            or has no setting of an override's name.
    """
    saved = SavedPolicy.read(checkpoint)
    change_settings(saved.cfg, overrides)
    return saved.build(device, trust=trust), saved.cfg
