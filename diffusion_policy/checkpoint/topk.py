"""Keeps the best checkpoints of a run beside the latest."""

from __future__ import annotations

import math
import numbers
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffusion_policy.util.atomic_file import abandoned, remove_abandoned, replacing
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.output_dir import writing

LATEST, BEST = "latest.ckpt", "best.ckpt"


class TopKCheckpoints:
    """Keeps the k best checkpoints of a run beside the latest.

    It deletes no file but those it has kept itself. ``best.ckpt`` is a symbolic link to the best of
    them. A link takes no space, also in a copy of the folder, and shows which checkpoint it is; on
    a disk without links it is left out.

    Args:
        directory: where they lie.
        monitor_key: metric to rank by, ``/`` written as ``_``.
        mode: ``max`` or ``min``.
        k: how many to keep; 0 keeps none.
        format_str: file name from ``epoch``, ``global_step``, ``train_loss`` and the monitored
            metric; None names epoch and metric.

    Attributes:
        best: value of each kept file.
        dropped: files that fell out and are deleted once the newcomer is kept. They are part of
            the state, so that a run which dies in between deletes them on resuming.

    Raises:
        UserError: mode, k or format_str cannot be used.
    """

    def __init__(
        self,
        directory: Path,
        monitor_key: str = "test_mean_score",
        mode: str = "max",
        k: int = 5,
        format_str: str | None = None,
    ) -> None:
        if mode not in ("max", "min"):
            raise UserError(f"checkpoint.topk.mode is {mode!r}; use max or min")
        if type(k) is not int or k < 0:
            raise UserError(f"checkpoint.topk.k is {k}; use 0 to keep none, or a whole number")
        self.directory = directory
        self.monitor_key = _underscored(monitor_key)
        self.mode = mode
        self.k = k
        self.format_str = format_str or (
            f"epoch={{epoch:04d}}-{self.monitor_key}={{{self.monitor_key}:.3f}}.ckpt"
        )
        self._require_usable_names()
        self.best: dict[str, float] = {}
        self.dropped: list[str] = []

    def _require_usable_names(self) -> None:
        """Try the file name on two epochs with the values that every record to rank holds."""
        try:
            first, second = (
                self.format_str.format(
                    **{self.monitor_key: 0.0, "train_loss": 0.0, "epoch": n, "global_step": n}
                )
                for n in range(2)
            )
        except (ValueError, LookupError, AttributeError) as error:
            raise UserError(
                f"checkpoint.topk.format_str is {self.format_str!r} ({error}); use "
                f"{{epoch}}, {{global_step}}, {{train_loss}} and {{{self.monitor_key}}}"
            ) from None
        if first == second or Path(first).name != first or Path(first).suffix != ".ckpt":
            raise UserError(
                f"checkpoint.topk.format_str is {self.format_str!r}; use a file name that "
                "ends in .ckpt and tells checkpoints apart by {epoch} or {global_step}"
            )

    def consider(self, metrics: dict[str, Any]) -> str | None:
        """The file name to keep the checkpoint of these metrics under, or None.

        Call :meth:`keep` once that checkpoint is written.
        """
        values = _ranking_values(metrics)
        if self.k == 0 or math.isnan(values.get(self.monitor_key, math.nan)):
            return None
        name = self.format_str.format(**values)
        ranked = sorted(
            {**self.best, name: float(values[self.monitor_key])}.items(),
            key=lambda item: item[1],
            reverse=self.mode == "max",
        )
        best = dict(ranked[: self.k])
        self.dropped += [old for old in self.best if old not in best]
        self.best = best
        return name if name in best else None

    def require_monitored(self, metrics: dict[str, Any]) -> None:
        """Check a record that holds every metric of the run.

        Raises:
            UserError: the monitored one is not among them; the message names those that are.
        """
        values = _ranking_values(metrics)
        if self.k > 0 and self.monitor_key not in values:
            # Scores of single seeds are too many to list.
            known = sorted(key for key in values if not key[-1].isdigit())
            raise UserError(
                f"checkpoint.topk.monitor_key is {self.monitor_key!r}, which this run does not "
                f"log; use one of {', '.join(known)}, or checkpoint.topk.k=0 to keep none"
            )

    def keep(self, latest: Path, name: str) -> None:
        """Keep the checkpoint at ``latest`` as ``name`` and delete those that fell out.

        Raises:
            UserError: it cannot be written.
        """
        path = self.directory / name
        with writing(path), replacing(path) as partial:
            try:
                # A second name for the same file: latest is replaced, never written into.
                partial.hardlink_to(latest)
            except OSError:
                shutil.copyfile(latest, partial)
        self._link_best()  # before its former target is deleted
        self._delete_dropped()

    def _link_best(self) -> None:
        """Let ``best.ckpt`` be the first of :attr:`best`; a file of the user stays."""
        best = self.directory / BEST
        name = next((name for name in self.best if (self.directory / name).is_file()), None)
        if name is None or (best.exists() and not best.is_symlink()):
            return
        if not best.is_symlink() or best.readlink() != Path(name):
            with suppress(OSError), replacing(best) as partial:
                partial.symlink_to(name)

    def _delete_dropped(self) -> None:
        for name in self.dropped:
            path = self.directory / name
            with writing(path):
                path.unlink(missing_ok=True)
        self.dropped = []

    def state_dict(self) -> dict[str, Any]:
        return {
            "monitor_key": self.monitor_key,
            "best": dict(self.best),
            "dropped": list(self.dropped),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state. Files ranked by another metric stay, but are not ranked any more.

        Raises:
            UserError: see :func:`require_kept_names`, or one is ranked by something else than a
                number; nothing is taken over.
        """
        dropped = require_kept_names(state.get("dropped", []))
        require_kept_names(state["best"])
        for name, value in state["best"].items():
            if not isinstance(value, numbers.Real):
                raise UserError(
                    f"the checkpoint ranks {name} by {value!r}, which is no number; use another "
                    "checkpoint of the run"
                )
        same = state.get("monitor_key", self.monitor_key) == self.monitor_key
        self.best = dict(state["best"]) if same else {}
        self.dropped = dropped

    def is_torn(self, latest: Path, name: str | None) -> bool:
        """Whether a crash left something for :meth:`repair` to do, see there."""
        is_kept = name is None or (self.directory / name).is_file()
        has_dropped = any((self.directory / dropped).exists() for dropped in self.dropped)
        return not is_kept or has_dropped or bool(abandoned(latest))

    def repair(self, latest: Path, name: str | None) -> None:
        """Finish what a crash after writing ``latest``, to be kept as ``name``, left undone.

        Raises:
            UserError: see :func:`require_kept_names`.
        """
        require_kept_names([] if name is None else [name])
        remove_abandoned(latest)
        if name is not None and not (self.directory / name).is_file():
            self.keep(latest, name)
        self.best = {n: v for n, v in self.best.items() if (self.directory / n).is_file()}
        self._link_best()
        self._delete_dropped()


def require_kept_names(names: Iterable[Any]) -> list[str]:
    """The names that a checkpoint gives to kept checkpoints: files are written and deleted by them.

    Raises:
        UserError: one is no name of a ``.ckpt`` file, or that of the latest or best checkpoint.
    """
    names = list(names)
    for name in names:
        is_name = isinstance(name, str) and Path(name).name == name and "\0" not in name
        if not is_name or not name.endswith(".ckpt") or name in (LATEST, BEST):
            raise UserError(
                f"the checkpoint names {name!r} as a kept checkpoint, which is no name of a .ckpt "
                "file of its own; use another checkpoint of the run"
            )
    return names


def _underscored(key: str) -> str:
    """The key of a metric as a file name can hold it."""
    return key.replace("/", "_")


def _ranking_values(metrics: dict[str, Any]) -> dict[str, Any]:
    """The numbers among metrics, by underscored key."""
    return {
        _underscored(key): value
        for key, value in metrics.items()
        if isinstance(value, numbers.Real)
    }


def monitored(monitor_key: str | None, mode: str | None, *, rolls_out: bool) -> tuple[str, str]:
    """``monitor_key`` and ``mode`` of ``checkpoint.topk``, where None chooses automatically.

    The best are those of the highest mean score where there are rollouts, else those of the least
    validation loss. Of a metric whose name ends in loss or error the least is best.
    """
    key = monitor_key or ("test_mean_score" if rolls_out else "val_loss")
    return key, mode or ("min" if key.endswith(("loss", "error")) else "max")
