"""The config that the jobs of a sweep share, in the directory of the sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from diffusion_policy.util.atomic_file import replacing


class WriteRootConfig(Callback):
    """Writes ``config.yaml`` to the directory of a new sweep before its first job starts.

    It leaves out the settings that differ between the jobs. The whole config of a job is in its
    folder ``.hydra/``.
    """

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        path = Path(config.hydra.sweep.dir) / "config.yaml"
        if path.exists():
            return
        common = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        OmegaConf.resolve(common)
        OmegaConf.set_struct(common, False)
        # Its parser names types that it does not have.
        parser: Any = OverridesParser.create()
        overrides = parser.parse_overrides(list(config.hydra.overrides.task))
        for override in overrides:
            if override.is_sweep_override() and not override.is_delete():
                parent, _, name = override.key_or_group.rpartition(".")
                section = OmegaConf.select(common, parent) if parent else common
                if name in (section or ()):  # else a job adds it
                    section.pop(name)
        with replacing(path) as partial:
            partial.write_text(OmegaConf.to_yaml(common))
