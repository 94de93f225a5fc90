"""Which settings a run may change when it is resumed, and which of the others have changed.

Each class declares such settings itself. This module imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from diffusion_policy.checkpoint.migration import migrate_config
from diffusion_policy.dataset.base_dataset import BaseDataset
from diffusion_policy.util.config import config_leaves, declared
from diffusion_policy.workspace.base_runner import BaseRunner
from diffusion_policy.workspace.training_config import TrainingConfig


def _of_training(effect: str) -> Iterator[str]:
    """The settings of training that declare this effect."""
    for field in fields(TrainingConfig):
        if field.metadata.get("effect") == effect:
            yield f"training.{field.name}"


WITHOUT_EFFECT = (
    *_of_training("none"),
    *(
        f"{loader}.{name}"
        for loader in ("dataloader", "val_dataloader")
        for name in (
            "num_workers",
            "pin_memory",
            "persistent_workers",
            "prefetch_factor",
            "timeout",
        )
    ),
    *(
        f"{section}.{name}"
        for section in ("task.dataset", "task.dataset.*")  # a mixture has datasets inside
        for name in BaseDataset.settings_without_effect
    ),
    *(f"task.env_runner.{name}" for name in BaseRunner.settings_without_effect),
    "task.fps",  # these two describe the data
    "task.embodiment",
    "checkpoint",
    "logging",
    "hydra",
)
"""Settings, patterns of them and whole sections without effect on what is learned and on scores:
where and how fast a run computes, how often it looks, what it keeps and where it logs."""
ABSENT = "absent"
# Settings that came later, and the values at which nothing changes.
_SINCE = {
    "task.transforms": [],
    "task.dataset.mirrored": False,
    "task.dataset.drop_first": 0,
    "task.dataset.drop_last": 0,
    "task.dataset.exclude_episodes": None,
    "task.dataset.filter": None,
    "policy.freeze_backbone": False,
    "training.plateau_patience": 2,
    "training.plateau_threshold": 0.01,
    "training.plateau_factor": 0.5,
    "policy.alpha": 0,
    "policy.predict_every_n": 1,
    "policy.return_every_n": 1,
}


class Change(NamedTuple):
    """A setting whose value differs; :data:`ABSENT` stands for a setting that does not exist."""

    key: str
    saved: Any
    current: Any


def changed_settings(
    saved: DictConfig, current: DictConfig, *, data_compared: bool = False
) -> list[Change]:
    """The settings that differ and must not, in the order of their keys.

    Args:
        data_compared: data are known by their content, so that they may lie elsewhere.
    """
    may_change = (*WITHOUT_EFFECT, *_without_effect_on_training(current))
    if data_compared:
        may_change = (*may_change, "task.dataset.path", "task.dataset.datasets.*.path")
    # The statistics of a mixture bear the name of the embodiment.
    if OmegaConf.select(current, "task.dataset.datasets") is not None:
        may_change = tuple(name for name in may_change if name != "task.embodiment")
    before = since_then(config_leaves(migrate_config(saved)))
    now = since_then(config_leaves(current))
    return [
        Change(key, before.get(key, ABSENT), now.get(key, ABSENT))
        for key in sorted(before.keys() | now.keys())
        if before.get(key, ABSENT) != now.get(key, ABSENT) and not is_among(key, may_change)
    ]


def _without_effect_on_training(cfg: DictConfig) -> Iterator[str]:
    """Settings that change neither what is learned from a batch nor the order of batches."""
    yield from _of_training("resume")
    yield "val_dataloader.batch_size"
    yield "task.env_runner"
    for section, names in declared(cfg, "policy", "inference_settings"):
        yield from (f"{section}.{name}" for name in names)


def since_then(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` by key, and the settings that came later."""
    return {**_SINCE, **settings}


def is_among(key: str, settings: Iterable[str]) -> bool:
    """Whether ``key`` is one of ``settings``, matches one, or lies in a section that is one."""
    return any(
        key == setting or key.startswith(f"{setting}.") or fnmatchcase(key, setting)
        for setting in settings
    )
