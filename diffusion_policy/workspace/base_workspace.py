"""What a run remembers, and how it is saved and found again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from diffusion_policy.checkpoint.checkpoint_file import load_checkpoint, save_checkpoint
from diffusion_policy.util import distributed
from diffusion_policy.util.errors import UserError
from diffusion_policy.workspace.changed_settings import changed_settings


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
