"""Published scores on PushT, from the human demonstrations, beside which ours are put."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Measure = Literal["success_rate", "mean_max_reward"]


@dataclass(frozen=True)
class Figure:
    """A published number.

    Attributes:
        measure: what it is, as ``aggregated`` of ``eval_info.json`` names it.
        value: at most 1.
        of: what it was taken over, where several were published.
    """

    measure: Measure
    value: float
    of: str = ""


@dataclass(frozen=True)
class Setting:
    """A method on a task.

    Attributes:
        name: for readers.
        configs: the configs of ours that train it.
        pictures: whether the policy sees any.
        figures: published for it.
    """

    name: str
    configs: tuple[str, ...]
    pictures: bool
    figures: tuple[Figure, ...]


def _dot(success_rate: float, mean_max_reward: float) -> tuple[Figure, ...]:
    return Figure("success_rate", success_rate), Figure("mean_max_reward", mean_max_reward)


def _diffusion(best: float, last: float) -> tuple[Figure, ...]:
    return (
        Figure("mean_max_reward", last, "mean of the last ten checkpoints"),
        Figure("mean_max_reward", best, "best checkpoint"),
    )


SETTINGS = (
    Setting(
        "DOT, keypoints",
        (
            "train_dot_pusht",
            "train_dot_pusht_human",
            "train_dot_pusht_lerobot",
            "train_dot_pusht_published",
        ),
        pictures=False,
        figures=_dot(0.845, 0.964),
    ),
    Setting(
        "DOT, pictures",
        ("train_dot_pusht_image", "train_dot_pusht_image_human"),
        pictures=True,
        figures=_dot(0.742, 0.936),
    ),
    Setting(
        "Diffusion Policy, U-Net, keypoints",
        ("train_diffusion_unet_pusht", "train_diffusion_unet_small_pusht"),
        pictures=False,
        figures=_diffusion(best=0.95, last=0.91),
    ),
    Setting(
        "Diffusion Policy, transformer, keypoints",
        ("train_diffusion_transformer_pusht", "train_diffusion_transformer_small_pusht"),
        pictures=False,
        figures=_diffusion(best=0.95, last=0.79),
    ),
    Setting(
        "Diffusion Policy, U-Net, pictures",
        ("train_diffusion_unet_pusht_image", "train_diffusion_unet_hybrid_pusht_image"),
        pictures=True,
        figures=_diffusion(best=0.91, last=0.84),
    ),
    Setting(
        "Diffusion Policy, transformer, pictures",
        (
            "train_diffusion_transformer_pusht_image",
            "train_diffusion_transformer_hybrid_pusht_image",
        ),
        pictures=True,
        figures=_diffusion(best=0.78, last=0.66),
    ),
)
