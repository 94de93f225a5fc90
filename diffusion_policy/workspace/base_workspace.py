"""What a run remembers, and how it is saved and found again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Self

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from diffusion_policy.checkpoint.checkpoint_file import (
    load_checkpoint,
    peek_checkpoint,
    save_checkpoint,
)
from diffusion_policy.checkpoint.trust import check_run_trusted
from diffusion_policy.util import distributed
from diffusion_policy.util.errors import UserError, one_line
from diffusion_policy.workspace.changed_settings import changed_settings

DATA = "data"
"""Entry of a state with the fingerprint of the data, see :class:`BaseDataset`."""


class BaseWorkspace(ABC):
    """A run: its config, its output directory and its state.

    A checkpoint holds the plain values that ``include_keys`` lists, and the state_dict of every
    attribute that ``stateful_keys`` lists, or, if that is None, of every attribute that has one
    and is not in ``exclude_keys``.

    Args:
        cfg: the composed config.
        output_dir: where everything is written.
    """

    stateful_keys: Sequence[str] | None = None
    include_keys: Sequence[str] = ()
    exclude_keys: Sequence[str] = ()

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
        state = {key: getattr(self, key) for key in self.include_keys}
        for key in self._stateful():
            part = getattr(self, key)
            state[key] = None if part is None else part.state_dict()
        return state

    def _stateful(self) -> Sequence[str]:
        if self.stateful_keys is not None:
            return self.stateful_keys
        methods = ("state_dict", "load_state_dict")
        return [
            key
            for key, part in vars(self).items()
            if all(hasattr(part, method) for method in methods) and key not in self.exclude_keys
        ]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state; parts that the config has switched off are left out."""
        for key in self.include_keys:
            setattr(self, key, state[key])
        for key in self._stateful():
            part = getattr(self, key)
            if part is not None and state.get(key) is not None:
                part.load_state_dict(state[key])

    def _needed(self) -> list[str]:
        """What this run must find in a checkpoint: what its class names, unless switched off."""
        parts = [key for key in self.stateful_keys or () if getattr(self, key) is not None]
        return [*self.include_keys, *parts]

    def load_payload(
        self,
        payload: Mapping[str, Any],
        exclude_keys: Iterable[str] | None = None,
        include_keys: Iterable[str] | None = None,
    ) -> None:
        """Take over the state in a checkpoint's contents, as ``load_checkpoint`` reads them.

        Args:
            exclude_keys: entries to leave as they are.
            include_keys: the plain values to take over; None for all of the class.
        """
        wanted = set(self.include_keys if include_keys is None else include_keys)
        left = {*(exclude_keys or ()), *(set(self.include_keys) - wanted)}
        kept = {key: getattr(self, key) if key in self.include_keys else None for key in left}
        self.load_state_dict({**payload["state"], **kept})
        for key in wanted - left - set(self.include_keys):
            setattr(self, key, payload["state"][key])

    def save_checkpoint(
        self,
        path: str | Path | None = None,
        tag: str = "latest",
        exclude_keys: Iterable[str] | None = None,
        include_keys: Iterable[str] | None = None,
        use_thread: bool = False,
        *,
        state: dict[str, Any] | None = None,
    ) -> Path:
        """Write the state; a previous file is replaced when the new one is complete.

        Args:
            exclude_keys: entries to leave out.
            include_keys: further attributes with plain values to save.
            use_thread: has no effect; the file is complete when this returns.
            state: what to write instead of the present state.
        """
        path = self.get_checkpoint_path(tag) if path is None else Path(path)
        state = self.state_dict() if state is None else state
        state |= {key: getattr(self, key) for key in include_keys or ()}
        left_out = set(exclude_keys or ())
        state = {key: value for key, value in state.items() if key not in left_out}
        save_checkpoint(path, OmegaConf.to_yaml(self.cfg, resolve=True), state)
        return path

    def load_checkpoint(
        self,
        path: str | Path | None = None,
        tag: str = "latest",
        exclude_keys: Iterable[str] | None = None,
        include_keys: Iterable[str] | None = None,
    ) -> Path:
        """Read a state saved by :meth:`save_checkpoint`; see :meth:`load_payload`.

        Raises:
            UserError: it cannot be read, or belongs to another method or other settings.
        """
        path = self.get_checkpoint_path(tag) if path is None else Path(path)
        payload = load_checkpoint(path)
        require_same_run(path, payload, self.cfg)
        needed = [key for key in self._needed() if key not in set(exclude_keys or ())]
        require_parts(path, payload["state"], needed)
        try:
            self.load_payload(payload, exclude_keys, include_keys)
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            reason = one_line(error)[:300]
            raise UserError(
                f"{path} does not fit this config ({reason}), so it is damaged or another version "
                "of the project wrote it; go on with that version, use another checkpoint, or "
                "choose another output directory"
            ) from error
        return path

    @classmethod
    def create_from_checkpoint(
        cls,
        path: str | Path,
        exclude_keys: Iterable[str] | None = None,
        include_keys: Iterable[str] | None = None,
        output_dir: str | Path | None = None,
        *,
        trust: bool = False,
    ) -> Self:
        """A workspace with the config and the state of a checkpoint; see :meth:`load_payload`.

        It reads the data set and the weights that the config names, and caches where it says: use
        it for checkpoints of your own.

        Args:
            trust: build whatever the config names, such as classes of your own package. That runs
                any code that the maker of the file chose.

        Raises:
            UserError: the checkpoint cannot be read, or names foreign classes untrusted.
        """
        path = Path(path)
        cfg = OmegaConf.create(peek_checkpoint(path)["config"])
        if not trust:
            check_run_trusted(cfg)
        workspace = cls(cfg, output_dir or path.resolve().parent.parent)
        workspace.load_checkpoint(path, exclude_keys=exclude_keys, include_keys=include_keys)
        return workspace

    def save_snapshot(self, tag: str = "latest") -> NoReturn:
        """Left out of this project: a snapshot is a pickle, which runs code when it is read."""
        raise UserError(f"snapshot {tag!r} would be a pickle, which is unsafe; use save_checkpoint")

    @classmethod
    def create_from_snapshot(cls, path: str | Path) -> NoReturn:
        """Left out of this project: a snapshot is a pickle, which runs code when it is read."""
        raise UserError(f"{path} is a pickle, which is unsafe to read; use create_from_checkpoint")


def checkpoint_path(output_dir: Path, tag: str = "latest") -> Path:
    """Where a run in ``output_dir`` saves."""
    return output_dir / "checkpoints" / f"{tag}.ckpt"


def require_parts(path: Path, state: Mapping[str, Any], names: Iterable[str]) -> None:
    """Check that the state in the checkpoint at ``path`` has all of ``names``.

    Raises:
        UserError: names those that it lacks.
    """
    if missing := [name for name in names if name not in state]:
        raise UserError(
            f"{path} lacks {', '.join(missing)}, without which the run cannot go on; use another "
            "checkpoint of the run, or choose another output directory"
        )


def _agreed(output_dir: Path) -> Path:
    """The directory of the main process: others may have started a second, and a name, later."""
    agreed = distributed.from_main(output_dir)
    if agreed != output_dir:
        with suppress(OSError):
            output_dir.rmdir()  # Hydra made it, and nothing is in it
    return agreed


def require_same_run(path: Path, payload: Mapping[str, Any], cfg: DictConfig) -> None:
    """:func:`require_same_settings` for the contents of the checkpoint at ``path``.

    Where it tells its data by their content, they may lie elsewhere now.
    """
    saved = DictConfig(OmegaConf.create(payload["config"]))
    require_same_settings(path, saved, cfg, data_compared=bool(payload["state"].get(DATA)))


def require_same_settings(
    path: Path, saved: DictConfig, cfg: DictConfig, *, data_compared: bool = False
) -> None:
    """Check that a run with ``cfg`` may go on where one with ``saved`` stopped.

    Args:
        path: what ``saved`` belongs to, for the message.
        data_compared: see :func:`changed_settings`.

    Raises:
        UserError: they are of another method or other settings.
    """
    theirs, ours = (OmegaConf.select(each, "policy._target_") for each in (saved, cfg))
    if theirs != ours:
        raise UserError(
            f"{path} is of {theirs}, this run trains {ours}; choose another output directory"
        )
    # Going on with other settings would pass off a mixture of two runs as one.
    if changes := changed_settings(saved, cfg, data_compared=data_compared):
        told = ", ".join(f"{key} was {old} and is {new}" for key, old, new in changes[:5])
        more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
        raise UserError(
            f"{path} does not fit this config: {told}{more}; "
            "go on with the settings it was trained with, or choose another output directory"
        )
