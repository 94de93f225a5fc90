"""What a run remembers, and how it is saved and found again."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from diffusion_policy.common import distributed
from diffusion_policy.common.checkpoint import load_checkpoint, save_checkpoint
from diffusion_policy.common.errors import UserError
from diffusion_policy.common.policy_folder import load_policy_folder
from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.workspace.changed_settings import changed_settings
from diffusion_policy.workspace.trust import check_trusted


class BaseWorkspace(ABC):
    """A run: its config, its output directory and its state.

    Subclasses list the attributes that a checkpoint holds: objects with a state_dict in
    ``stateful_keys``, plain values in ``value_keys``.

    Args:
        cfg: the composed config.
        output_dir: where everything is written.
    """

    stateful_keys: tuple[str, ...] = ()
    value_keys: tuple[str, ...] = ()

    def __init__(self, cfg: DictConfig, output_dir: str | Path | None = None) -> None:
        self.cfg = cfg
        self.output_dir = _agreed(Path(output_dir or HydraConfig.get().runtime.output_dir))

    @classmethod
    def launch(cls, cfg: DictConfig) -> float | None:
        """What a Hydra job does: run in its output directory; returns what :meth:`run` does."""
        score = cls(cfg).run()
        distributed.leave()
        return score

    @abstractmethod
    def run(self) -> float | None:
        """Do the work, from the start or from the loaded state; returns its score, if any."""

    def get_checkpoint_path(self, tag: str = "latest") -> Path:
        return checkpoint_path(self.output_dir, tag)

    def state_dict(self) -> dict[str, Any]:
        """Everything that must survive a restart, as tensors and plain values."""
        state = {key: getattr(self, key) for key in self.value_keys}
        for key in self.stateful_keys:
            part = getattr(self, key)
            state[key] = None if part is None else part.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state; parts that the config has switched off are left out."""
        for key in self.value_keys:
            setattr(self, key, state[key])
        for key in self.stateful_keys:
            part = getattr(self, key)
            if part is not None and state.get(key) is not None:
                part.load_state_dict(state[key])

    def save_checkpoint(
        self, path: Path | None = None, tag: str = "latest", state: dict[str, Any] | None = None
    ) -> Path:
        """Write ``state``, by default the present one; the previous file stays till it is whole."""
        path = path or self.get_checkpoint_path(tag)
        state = self.state_dict() if state is None else state
        save_checkpoint(path, OmegaConf.to_yaml(self.cfg, resolve=True), state)
        return path

    def load_checkpoint(self, path: Path | None = None, tag: str = "latest") -> Path:
        """Read a state saved by :meth:`save_checkpoint`.

        Raises:
            UserError: it cannot be read, or belongs to another method or other settings.
        """
        path = path or self.get_checkpoint_path(tag)
        payload = load_checkpoint(path)
        require_same_settings(path, OmegaConf.create(payload["config"]), self.cfg)
        try:
            self.load_state_dict(payload["state"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"{path} does not fit this config ({reason}), so another version of the project "
                "wrote it; go on with that version, or choose another output directory"
            ) from error
        return path

    @classmethod
    def create_from_checkpoint(
        cls, path: Path, output_dir: str | Path | None = None
    ) -> BaseWorkspace:
        """A workspace with the config and the state of a checkpoint.

        Whatever the config names is built, so the checkpoint must come from someone you trust.
        """
        cfg = OmegaConf.create(load_checkpoint(path)["config"])
        workspace = cls(cfg, output_dir or path.resolve().parent.parent)
        workspace.load_checkpoint(path)
        return workspace


def checkpoint_path(output_dir: Path, tag: str = "latest") -> Path:
    """Where a run in ``output_dir`` saves."""
    return output_dir / "checkpoints" / f"{tag}.ckpt"


def _agreed(output_dir: Path) -> Path:
    """The directory of the main process: others may have started a second, and a name, later."""
    agreed = distributed.from_main(output_dir)
    if agreed != output_dir:
        with suppress(OSError):
            output_dir.rmdir()  # Hydra made it, and nothing is in it
    return agreed


def require_same_settings(path: Path, saved: DictConfig, cfg: DictConfig) -> None:
    """Check that a run with ``cfg`` may go on where one with ``saved`` stopped.

    Args:
        path: what ``saved`` belongs to, for the message.

    Raises:
        UserError: they are of another method or other settings.
    """
    theirs, ours = saved.policy._target_, cfg.policy._target_
    if theirs != ours:
        raise UserError(
            f"{path} is of {theirs}, this run trains {ours}; choose another output directory"
        )
    # Going on with other settings would pass off a mixture of two runs as one.
    if changes := changed_settings(saved, cfg):
        told = ", ".join(f"{key} was {old} and is {new}" for key, old, new in changes[:5])
        more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
        raise UserError(
            f"{path} does not fit this config: {told}{more}; "
            "go on with the settings it was trained with, or choose another output directory"
        )


def load_weights(checkpoint: str | Path) -> tuple[DictConfig, dict[str, torch.Tensor]]:
    """The resolved config of a checkpoint's run, and the state_dict of its policy.

    It is that of the averaged policy where the run kept one.

    Args:
        checkpoint: a file written by train.py or by an import, or an exported folder.

    Raises:
        UserError: it cannot be read, or holds no policy.
    """
    path = Path(checkpoint)
    payload = load_policy_folder(path) if path.is_dir() else load_checkpoint(path)
    weights = payload["state"].get("ema_model") or payload["state"].get("model")
    if weights is None:
        raise UserError(f"{checkpoint} holds no policy; use a checkpoint written by train.py")
    cfg = OmegaConf.create(payload["config"])
    OmegaConf.resolve(cfg)
    return cfg, weights


def trained_steps(checkpoint: str | Path) -> int | None:
    """The optimiser steps of a checkpoint; None of an exported folder and of an import.

    Raises:
        UserError: it cannot be read.
    """
    path = Path(checkpoint)
    # On "meta" the weights stay in the file.
    return None if path.is_dir() else load_checkpoint(path, "meta")["state"].get("global_step")


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
        checkpoint: see :func:`load_weights`.
        overrides: ``key=value`` changes to settings of that config that leave the weights as they
            are: ``policy.noise_scheduler.num_inference_steps=10``; ``+key=value`` adds one that
            the run did not name, such as one that came later.
        trust: build whatever the file's config names, and not this package's policies alone. That
            runs any code that the maker of the file chose.

    Raises:
        UserError: the checkpoint cannot be read, holds no policy, names a foreign one untrusted,
            or has no setting of an override's name.
    """
    cfg, weights = load_weights(checkpoint)
    change_settings(cfg, overrides)
    if not trust:
        check_trusted(cfg, "policy")
    # The weights are about to be loaded: none need to be fetched, nor kept from training.
    policy_cfg = copy.deepcopy(cfg.policy)
    for key, value in (
        ("backbone_weights", None),
        ("obs_encoder.weights", None),
        ("freeze_backbone", False),
    ):
        if OmegaConf.select(policy_cfg, key) is not None:
            OmegaConf.update(policy_cfg, key, value)
    policy = hydra.utils.instantiate(policy_cfg)
    try:
        policy.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        cause = (
            f"leave out the overrides that change its network ({' '.join(overrides)})"
            if overrides
            else "it was written by another version of the policy"
        )
        raise UserError(f"{checkpoint} does not fit its config ({reason}); {cause}") from error
    policy.to(device).eval()
    policy.prepare_for_inference()
    return policy, cfg


def change_settings(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Set, in place, ``key=value`` of the policy or its runner; ``+key=value`` may be a new one.

    Raises:
        UserError: there is no such setting, or its value cannot be read.
    """
    remedy = "give key=value as in policy.noise_scheduler.num_inference_steps=10"
    for override in overrides:
        key, equals, value = override.lstrip("+").partition("=")
        section = OmegaConf.select(cfg, key.rpartition(".")[0] or "?")
        exists = OmegaConf.is_dict(section) and key.rpartition(".")[2] in section
        adds = OmegaConf.is_dict(section) and override.startswith("+")
        if not equals or not (exists or adds):
            raise UserError(
                f"override {override!r} names no setting of the checkpoint; {remedy}, or "
                "+key=value for one that its config leaves at the default"
            )
        if not key.startswith(("policy.", "task.env_runner.")):
            raise UserError(f"override {override!r} changes nothing here; {remedy}")
        try:
            (parsed,) = OverridesParser.create().parse_overrides([f"{key}={value}"])
        except HydraException as error:
            raise UserError(
                f"override {override!r} cannot be read ({str(error).splitlines()[0]}); {remedy}"
            ) from None
        new = parsed.value()
        if exists and OmegaConf.is_dict(OmegaConf.select(cfg, key)) != isinstance(new, dict):
            raise UserError(f"override {override!r} gives a value to a section; {remedy}")
        OmegaConf.update(cfg, key, new, force_add=True)
