"""The config that the jobs of a sweep have in common, at the root of the sweep."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from diffusion_policy.common.atomic_file import replacing


class WriteRootConfig(Callback):
    """Writes ``config.yaml`` to the directory of a sweep before its first job starts.

    It holds what was set for all jobs; each job's own config is in its ``.hydra/``.
    """

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        if os.environ.get("RANK", "0") != "0":  # of the processes of torchrun, one writes
            return
        common = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
        with replacing(Path(config.hydra.sweep.dir) / "config.yaml") as partial:
            partial.write_text(OmegaConf.to_yaml(common, resolve=True))
