"""Which settings a run may change when it is resumed, and which of the others have changed."""

from __future__ import annotations

from typing import Any, NamedTuple

from omegaconf import DictConfig

from diffusion_policy.common.config_leaves import config_leaves

# Keys and whole sections that do not alter what is learned from a batch, or in which order.
MAY_CHANGE = (
    *(
        f"training.{name}"
        for name in (
            "num_epochs",  # a finished run may be prolonged; the schedule stretches with it
            "rollout_every",
            "checkpoint_every",
            "val_every",
            "sample_every",
            "checkpoint_minutes",
            "max_val_steps",
            "device",
            "num_threads",
            "compile",
            "fsdp",
            "tqdm_interval_sec",
            "resume",
            "debug",  # what it sets is compared
        )
    ),
    *(
        f"{loader}.{name}"
        for loader in ("dataloader", "val_dataloader")
        for name in ("num_workers", "pin_memory", "persistent_workers", "prefetch_factor")
    ),
    "val_dataloader.batch_size",
    "task.env_runner",
    "task.dataset.reader.cache_dir",
    "policy.backbone_weights",  # the checkpoint brings the weights
    "policy.obs_encoder.weights",
    "policy.noise_scheduler.sampler",  # every sampler trains alike
    "policy.noise_scheduler.num_inference_steps",
    "checkpoint",
    "logging",
    "hydra",
)
ABSENT = "absent"


class Change(NamedTuple):
    """A setting with another value than before; :data:`ABSENT` where it is not set at all."""

    key: str
    saved: Any
    current: Any


def changed_settings(saved: DictConfig, current: DictConfig) -> list[Change]:
    """The settings that differ and should not, in the order of their keys."""
    before, now = config_leaves(saved), config_leaves(current)
    return [
        Change(key, before.get(key, ABSENT), now.get(key, ABSENT))
        for key in sorted(before.keys() | now.keys())
        if before.get(key, ABSENT) != now.get(key, ABSENT) and not _may_change(key)
    ]


def _may_change(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in MAY_CHANGE)
