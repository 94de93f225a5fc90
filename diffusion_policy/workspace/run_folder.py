"""The folder of a run or a sweep: ``newest`` for the one that was started last, ``~`` for home."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from diffusion_policy.workspace.run_config import RUN_CONFIG, hydra_override

NEWEST = "newest"


class RunFolder(Callback):
    """Lets ``hydra.run.dir=newest`` name the newest run of a config, ``hydra.sweep.dir`` the sweep.

    Args:
        outputs: folder whose ``<date>/<time>_<label>`` are runs and sweeps.
        label: of the runs of this config.
    """

    def __init__(self, outputs: str, label: str) -> None:
        self.outputs = Path(outputs)
        self.label = label

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        self._settle(config, "hydra.run.dir", RUN_CONFIG)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self._settle(config, "hydra.sweep.dir", Path("config.yaml"))

    def _settle(self, config: DictConfig, key: str, mark: Path) -> None:
        asked = str(OmegaConf.select(config, key))
        folder = self._newest(key, mark) if asked == NEWEST else Path(asked).expanduser()
        if str(folder) == asked:
            return
        with read_write(config.hydra):
            OmegaConf.update(config, key, str(folder))
            # From these Hydra composes the config of each job of a sweep.
            overrides = config.hydra.overrides.hydra
            for i, override in enumerate(overrides):
                if override.startswith(f"{key}="):
                    overrides[i] = hydra_override(key, folder)

    def _newest(self, key: str, mark: Path) -> Path:
        found = max(self._started(mark), default=None)
        if found is None:
            # Hydra would take an exception of a callback for a warning.
            sys.exit(
                f"error: {key} is {NEWEST}, but {self.outputs} holds no earlier one of "
                f"{self.label}; leave it out to start one, or give its folder"
            )
        return found

    def _started(self, mark: Path) -> Iterator[Path]:
        for folder in self.outputs.glob("*/*"):
            if folder.name.partition("_")[2] == self.label and (folder / mark).is_file():
                yield folder
