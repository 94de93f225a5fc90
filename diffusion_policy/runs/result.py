"""A folder of ``docs/results``: a finished run and its score."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffusion_policy.checkpoint.config_changes import change_settings
from diffusion_policy.checkpoint.migration import migrate_config
from diffusion_policy.env_runner.outcomes import Outcomes
from diffusion_policy.env_runner.report import INFO_FILE
from diffusion_policy.runs.episodes import EPISODE, EPISODES_FILE, read_episodes
from diffusion_policy.runs.published import benchmark
from diffusion_policy.util.config import config_leaves
from diffusion_policy.util.config_file import read_config
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_file import NUMBER, read_json, require_shape
from diffusion_policy.workspace.launches import read_launches

CONFIG_FILE = "config.yaml"
_INFO = {
    "command": str,
    "checkpoint": str,
    "global_step?": int,
    "overrides?": [str],
    "precision?": str,
    "starts?": str,
    "seed_range": [int, int],
    "per_episode?": [EPISODE],
    "aggregated": {
        "n_episodes": int,
        "success_rate?": NUMBER,
        "success_ci95?": [NUMBER, NUMBER],
        "mean_max_reward": NUMBER,
        "mean_max_reward_ci95": [NUMBER, NUMBER],
    },
    "commit": str,
    "machine": str,
    "versions": dict,
    "duration_s": NUMBER,
}
"""What pages and tables read of ``eval_info.json``."""


_CONFIG = {
    "name": str,
    "policy": {"_target_": str},
    "training": {"seed": int, "gradient_accumulate_every": int},
    "dataloader": {"batch_size": int},
    "task": {
        "shape_meta": {"obs": dict},
        "dataset": {"path?": str, "datasets?": dict},
        "env_runner?": dict,
    },
}
"""What they read of the config."""


@dataclass(frozen=True)
class Result:
    """A run on record and its evaluation.

    Attributes:
        directory: the folder.
        cfg: resolved config of the run, in today's form.
        info: what eval.py wrote, see docs/evaluation.md.
        launches: see :mod:`diffusion_policy.workspace.launches`.
    """

    directory: Path
    cfg: DictConfig
    info: Mapping[str, Any]
    launches: list[dict[str, Any]]

    @classmethod
    def read(cls, directory: Path) -> Result:
        """Read a folder of results, of this version or an earlier one.

        Raises:
            UserError: the folder has no launches.json, or it is damaged.
        """
        info = read_info(directory)
        cfg = migrate_config(read_config(directory / CONFIG_FILE))
        try:
            require_shape(OmegaConf.to_container(cfg), _CONFIG)
        except ValueError as error:
            raise UserError(
                f"{directory / CONFIG_FILE} is damaged ({error}); restore it from a copy"
            ) from None
        return cls(directory, cfg, info, read_launches(directory))

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def seed(self) -> int:
        return self.cfg.training.seed

    @property
    def score(self) -> Mapping[str, Any]:
        return self.info["aggregated"]

    @property
    def outcomes(self) -> Outcomes:
        """How to read the rewards; of records that do not say it, by the config."""
        declared = OmegaConf.select(self.cfg, "task.env_runner.outcomes")
        return Outcomes.parse(self.info.get("outcomes", declared))

    @property
    def evaluated_cfg(self) -> DictConfig:
        """The config with the settings that the evaluation changed."""
        cfg = copy.deepcopy(self.cfg)
        change_settings(cfg, self.info.get("overrides", []))
        return cfg

    @property
    def settings(self) -> Mapping[str, Any]:
        """Config of training and evaluation, flat."""
        return {
            **config_leaves(self.evaluated_cfg),
            "evaluation.starts": self.info.get("starts"),
            "evaluation.seeds": self.info["seed_range"],
            "evaluation.as_published": self.scored_as_published,
            "evaluation.precision": self.info.get("precision", "fp32"),
        }

    @property
    def demonstration_paths(self) -> list[str]:
        """Where the demonstrations were; several of a mixture."""
        dataset = self.cfg.task.dataset
        return [each.path for each in dataset.get("datasets", {"": dataset}).values()]

    @property
    def demonstrations(self) -> str:
        """Kinds of the demonstrations: human, scripted, or the name of the file."""
        kinds = [benchmark().kind(path) for path in self.demonstration_paths]
        return " and ".join(dict.fromkeys(kinds))

    @property
    def is_of_benchmark(self) -> bool:
        """Whether it was scored in an environment of the benchmark with published scores."""
        env_id = OmegaConf.select(self.evaluated_cfg, "task.env_runner.env.id")
        return fnmatchcase(str(env_id), benchmark().environments)

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(OmegaConf.select(self.cfg, "task.name", default="unnamed task"))

    @property
    def observes(self) -> str:
        """``images`` if one of the observations is an image, else ``keypoints``."""
        fields = filter(OmegaConf.is_dict, self.cfg.task.shape_meta.obs.values())
        return "images" if any(field.get("type") == "rgb" for field in fields) else "keypoints"

    @property
    def scored_as_published(self) -> bool:
        """Whether the last checkpoint was scored by the protocol of the published scores."""
        protocol, runner = benchmark().protocol, self.evaluated_cfg.task.env_runner
        return (
            all(
                OmegaConf.select(runner, key, default=setting["default"]) == setting["value"]
                for key, setting in protocol["env_runner"].items()
            )
            and self._is_of_the_end
            and self.info.get("starts") is None
            and self.info["seed_range"] == protocol["seeds"]
        )

    @property
    def _is_of_the_end(self) -> bool:
        step = self.info.get("global_step")
        if step is None:  # earlier versions did not write it
            return Path(self.info["checkpoint"]).name == "latest.ckpt"
        return step == self.n_steps

    @property
    def n_steps(self) -> int:
        """Number of optimiser steps."""
        return self.launches[-1]["steps"][1]

    @property
    def seconds(self) -> float:
        """Wall time of the training, with rollouts."""
        return sum(launch["seconds"] for launch in self.launches)

    @property
    def batch_size(self) -> int:
        """Number of samples of an optimiser step."""
        return self.cfg.dataloader.batch_size * self.cfg.training.gradient_accumulate_every

    @property
    def effort(self) -> str:
        """Steps, batch size and time of the training."""
        # The first launches of a run may be older than launches.json.
        more = "more than " if self.launches[0]["steps"][0] > 0 else ""
        return f"{self.n_steps:,} steps of {self.batch_size} in {more}{duration(self.seconds)}"


def read_info(folder: Path) -> dict[str, Any]:
    """Read what eval.py recorded in ``folder``, or what is on record of it.

    What an episode of an early record does not tell is None.

    Raises:
        UserError: a file is damaged.
    """
    info = read_json(folder / INFO_FILE, _INFO, "evaluate the checkpoint again")
    if "per_episode" not in info:  # on record they are a table; in earlier versions they were not
        info["per_episode"] = read_episodes(folder / EPISODES_FILE)
    unknown = {"success": None, "best_step": None, "video": None}
    info["per_episode"] = [{**unknown, **episode} for episode in info["per_episode"]]
    return info


def percent(share: float) -> str:
    """A share in percent, rounded down: 0.67699 becomes 67.6."""
    return _rounded_down(100 * Decimal(repr(share)), "0.1")


def thousandths(value: float) -> str:
    """Three digits, rounded down: 0.9519 becomes 0.951."""
    return _rounded_down(Decimal(repr(value)), "0.001")


def _rounded_down(value: Decimal, unit: str) -> str:
    return str(value.quantize(Decimal(unit), ROUND_FLOOR))


def duration(seconds: float) -> str:
    """Minutes below two hours, else hours."""
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
