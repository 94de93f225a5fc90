"""Which settings a run may change when it is resumed, and which of the others have changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from omegaconf import DictConfig

from diffusion_policy.checkpoint.migration import migrate_config
from diffusion_policy.util.config import config_leaves

# Keys and whole sections that decide neither what is learned nor how it is scored: where and how
# fast a run computes, how often it looks, what it keeps and where it logs.
WITHOUT_EFFECT = (
    *(
        f"training.{name}"
        for name in (
            "device",
            "num_threads",
            "compile",
            "fsdp",
            "resume",
            "debug",  # what it sets is compared
            "val_every",
            "max_val_steps",
            "sample_every",
            "checkpoint_every",
            "checkpoint_minutes",
            "log_every",
            "tqdm_interval_sec",
        )
    ),
    *(
        f"{loader}.{name}"
        for loader in ("dataloader", "val_dataloader")
        for name in ("num_workers", "pin_memory", "persistent_workers", "prefetch_factor")
    ),
    "task.dataset.cache_dir",
    "task.dataset.symmetry",  # counts where mirrored does, which is compared
    *(
        f"task.env_runner.{name}"
        for name in ("n_workers", "n_envs", "n_train_vis", "n_test_vis", "fps")
    ),
    "task.fps",  # these two describe the data
    "task.embodiment",
    "checkpoint",
    "logging",
    "hydra",
)
# Those, and what alters neither what is learned from a batch nor the order of batches.
MAY_CHANGE = (
    *WITHOUT_EFFECT,
    "training.num_epochs",  # a finished run may be prolonged; the schedule stretches with it
    "training.max_steps",
    "training.rollout_every",
    "val_dataloader.batch_size",
    "task.env_runner",
    "policy.backbone_weights",  # the checkpoint brings the weights
    "policy.obs_encoder.weights",
    *(  # how DOT follows its plans
        f"policy.{name}"
        for name in ("alpha", "predict_every_n", "return_every_n", "stall_skip", "stall_tolerance")
    ),
    "policy.noise_scheduler.sampler",  # every sampler trains alike
    "policy.noise_scheduler.num_inference_steps",
    "policy.noise_scheduler.timestep_spacing",
)
ABSENT = "absent"
# Settings that earlier versions did not know, and the value at which nothing is different.
_SINCE = {
    "task.dataset.mirrored": False,
    "policy.freeze_backbone": False,
    "policy.alpha": 0,
    "policy.predict_every_n": 1,
    "policy.return_every_n": 1,
}


class Change(NamedTuple):
    """A setting with another value than before; :data:`ABSENT` where it is not set at all."""

    key: str
    saved: Any
    current: Any


def changed_settings(saved: DictConfig, current: DictConfig) -> list[Change]:
    """The settings that differ and should not, in the order of their keys."""
    before = since_then(config_leaves(migrate_config(saved)))
    now = since_then(config_leaves(current))
    return [
        Change(key, before.get(key, ABSENT), now.get(key, ABSENT))
        for key in sorted(before.keys() | now.keys())
        if before.get(key, ABSENT) != now.get(key, ABSENT) and not is_among(key, MAY_CHANGE)
    ]


def since_then(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` by key, with those that an earlier version did not know."""
    return {**_SINCE, **settings}


def is_among(key: str, settings: Sequence[str]) -> bool:
    """Whether ``key`` is one of ``settings``, or lies in a section that is."""
    return any(key == setting or key.startswith(f"{setting}.") for setting in settings)
