"""The best k checkpoints as users of the original diffusion_policy keep them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusion_policy.checkpoint.topk import TopKCheckpoints


class TopKCheckpointManager(TopKCheckpoints):
    """Says where to write a checkpoint that is among the best k, and deletes the one it replaces.

    TrainWorkspace uses :class:`TopKCheckpoints` itself, which deletes a file after its successor
    is written.

    Args:
        save_dir: where the checkpoints lie.
        monitor_key, mode, k, format_str: see :class:`TopKCheckpoints`.
    """

    def __init__(
        self,
        save_dir: str | Path,
        monitor_key: str,
        mode: str = "min",
        k: int = 1,
        format_str: str = "epoch={epoch:03d}-train_loss={train_loss:.3f}.ckpt",
    ) -> None:
        super().__init__(Path(save_dir), monitor_key, mode, k, format_str)
        self.save_dir = save_dir

    @property
    def path_value_map(self) -> dict[str, float]:
        """Value of each checkpoint that is kept, by path."""
        return {str(self.directory / name): value for name, value in self.best.items()}

    def get_ckpt_path(self, data: Mapping[str, Any]) -> str | None:
        """The path to write the checkpoint of these metrics to; None where it is not good enough.

        The file that it replaces is deleted at once, before the new one is written.

        Raises:
            UserError: the monitored metric is not among ``data``.
        """
        self.require_monitored(dict(data))
        name = self.consider(dict(data))
        self._delete_dropped()
        return None if name is None else str(self.directory / name)
