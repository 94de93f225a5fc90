"""A folder of ``docs/results``: what a finished run was, and what it reached."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_policy.checkpoint.saved_policy import change_settings
from diffusion_policy.env_runner.report import INFO_FILE
from diffusion_policy.workspace.launches import read_launches

CONFIG_FILE = "config.yaml"


@dataclass(frozen=True)
class Result:
    """A run and its evaluation.

    Attributes:
        name: of the folder.
        cfg: resolved config of the run.
        info: what its evaluation wrote, see docs/evaluation.md.
        launches: how the run came about, see :mod:`diffusion_policy.workspace.launches`.
    """

    name: str
    cfg: DictConfig
    info: Mapping[str, Any]
    launches: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> Result:
        """Read a folder of results.

        Raises:
            UserError: it does not tell how the run came about.
        """
        return cls(
            folder.name,
            OmegaConf.load(folder / CONFIG_FILE),
            json.loads((folder / INFO_FILE).read_text()),
            read_launches(folder),
        )

    @property
    def score(self) -> Mapping[str, Any]:
        return self.info["aggregated"]

    @property
    def evaluated_cfg(self) -> DictConfig:
        """The config with what the evaluation changed."""
        cfg = copy.deepcopy(self.cfg)
        change_settings(cfg, self.info.get("overrides", []))
        return cfg

    @property
    def demonstrations(self) -> str:
        """``human`` or ``scripted`` for those that docs/data.md names, else the file's name."""
        name = Path(self.cfg.task.dataset.path).name
        for kind, marks in {"scripted": ("scripted",), "human": ("human", "cchi")}.items():
            if any(mark in name for mark in marks):
                return kind
        return name

    @property
    def sees_pictures(self) -> bool:
        """Whether one of the observations is a picture."""
        return any(obs.get("type") == "rgb" for obs in self.cfg.task.shape_meta.obs.values())

    @property
    def scored_as_published(self) -> bool:
        """The end of the run, on PushT as published, from 1000 starts of the usual seeds."""
        cfg = self.evaluated_cfg
        expected = {  # and what it is where a config does not tell
            "env.id": ("diffusion_policy/PushT-v0", None),
            "env.kwargs.legacy": (True, True),
            "max_steps": (300, None),
            "n_latency_steps": (0, 0),
        }
        return (
            all(
                OmegaConf.select(cfg, f"task.env_runner.{key}", default=default) == value
                for key, (value, default) in expected.items()
            )
            and self._is_of_the_end
            and self.info["seed_range"] == [100_000, 100_999]
        )

    @property
    def _is_of_the_end(self) -> bool:
        step = self.info.get("global_step")
        if step is None:  # earlier versions did not tell
            return Path(self.info["checkpoint"]).name == "latest.ckpt"
        return step == self.n_steps

    @property
    def n_steps(self) -> int:
        """Optimiser steps."""
        return self.launches[-1]["steps"][1]

    @property
    def seconds(self) -> float:
        """Wall time of the training, rollouts included."""
        return sum(launch["seconds"] for launch in self.launches)

    @property
    def batch_size(self) -> int:
        """Samples of an optimiser step."""
        return self.cfg.dataloader.batch_size * self.cfg.training.gradient_accumulate_every

    @property
    def effort(self) -> str:
        """What the training took."""
        # The first launches of a run may be older than the record of launches.
        more = "more than " if self.launches[0]["steps"][0] > 0 else ""
        return f"{self.n_steps:,} steps of {self.batch_size} in {more}{duration(self.seconds)}"


def percent(share: float) -> str:
    """A share in percent, rounded down: 0.67699 is 67.6."""
    return _rounded_down(100 * Decimal(repr(share)), "0.1")


def thousandths(value: float) -> str:
    """Three digits, rounded down: 0.9519 is 0.951."""
    return _rounded_down(Decimal(repr(value)), "0.001")


def _rounded_down(value: Decimal, unit: str) -> str:
    return str(value.quantize(Decimal(unit), ROUND_FLOOR))


def duration(seconds: float) -> str:
    """Minutes below two hours, hours above."""
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
