"""From the normalised observations of one time step to one vector of features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_policy.model.vision.backbone import build_backbone
from diffusion_policy.model.vision.crop import Crop
from diffusion_policy.model.vision.resnet import IMAGENET_MEAN, IMAGENET_STD
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.util.errors import UserError, require

_FIELD = "policy.obs_encoder"  # for errors


class ObsEncoder(nn.Module, ABC):
    """Maps N observations {key: (N, ...)} to features (N, output_dim).

    Inputs are normalised: images float (N, 3, H, W) in [-1, 1], low-dim values of any shape and
    range. Keys that are not in ``shape_meta`` are ignored.

    Attributes:
        output_dim: numbers of a feature vector.
        image_keys, low_dim_keys: what is encoded, in the order of the config.
        inference_settings, weight_settings: see
            :class:`~diffusion_policy.policy.base_policy.BasePolicy`.

    Raises:
        UserError: an observation is neither an image nor low-dim.
    """

    inference_settings: ClassVar[tuple[str, ...]] = ()
    weight_settings: ClassVar[Mapping[str, Any]] = {}
    output_dim: int

    def __init__(self, shape_meta: Mapping[str, Any]) -> None:
        super().__init__()
        self.shape_meta = TaskSpec.parse(shape_meta)
        obs = self.shape_meta.obs
        for key, field in obs.items():
            remedy = f"{type(self).__name__} encodes rgb and low_dim: remove the observation"
            known = field.type in ("rgb", "low_dim")
            require(known, f"shape_meta.obs.{key}.type", field.type, remedy)
        self.image_keys = [key for key, field in obs.items() if field.type == "rgb"]
        self.low_dim_keys = [key for key, field in obs.items() if field.type == "low_dim"]

    @property
    def low_dim_size(self) -> int:
        """Numbers of all low-dim observations of one time step."""
        return sum(self.shape_meta.obs[key].size for key in self.low_dim_keys)

    @abstractmethod
    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """{key: (N, ...)} -> (N, output_dim)."""


class LowDimEncoder(ObsEncoder):
    """Low-dim observations, flattened and side by side in the order of the config.

    Raises:
        UserError: an observation is an image.
    """

    def __init__(self, shape_meta: Mapping[str, Any]) -> None:
        super().__init__(shape_meta)
        for key in self.image_keys:
            remedy = "the low-dim encoder takes low_dim alone: use policy/obs_encoder=plain"
            require(False, f"shape_meta.obs.{key}.type", "rgb", remedy)
        self.output_dim = self.low_dim_size

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """{key: (N, ...)} -> (N, output_dim)."""
        return torch.cat([obs[key].flatten(1) for key in self.low_dim_keys], dim=-1)


class ImageObsEncoder(ObsEncoder):
    """A backbone for each camera, its features before the low-dim observations.

    An image is resized, cropped, normalised and encoded, in this order. Features are those of the
    cameras, then the low-dim observations, both in the order of the config. A camera has 512
    features with ResNet-18 and 34, 2048 with ResNet-50.

    Args:
        shape_meta: observations of the task, at least one of them rgb.
        backbone, weights: name and weights, see :func:`build_backbone`.
        share_backbone: one network for all cameras instead of one for each.
        resize: [h, w] that images are resized to, bilinear with antialiasing; None keeps them.
        crop: [h, w] or share of the sides of a :class:`Crop`; None takes the whole image.
        imagenet_norm: give the network ImageNet's mean and standard deviation instead of [-1, 1].
        group_norm: GroupNorm instead of BatchNorm, as weights averaged over training need; the
            keypoint CNN has no other.

    Raises:
        UserError: there is no image, the backbone is unknown, or a size is impossible.
    """

    inference_settings: ClassVar[tuple[str, ...]] = ("weights",)
    weight_settings: ClassVar[Mapping[str, Any]] = {"weights": None}

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        backbone: str = "resnet18",
        weights: str | None = None,
        share_backbone: bool = False,
        resize: Sequence[int] | None = None,
        crop: Sequence[int] | float | None = None,
        imagenet_norm: bool = True,
        group_norm: bool = True,
    ) -> None:
        super().__init__(shape_meta)
        require_images(self)
        self.resize = None if resize is None else check_size("resize", resize)
        self.crop: nn.Module = nn.Identity()
        if crop is not None:
            self.crop = build_crop(crop)
            for key in self.image_keys:
                image = self.resize or self.shape_meta.obs[key].shape[1:]
                check_crop(self.crop.of(*image), image)
        self.share_backbone = share_backbone
        # A list: keys of observations may hold dots, names of modules may not.
        self.backbones = nn.ModuleList(
            _backbone(backbone, weights, group_norm)
            for _ in range(1 if share_backbone else len(self.image_keys))
        )
        scale, shift = _from_unit_range(imagenet_norm)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        n_features = self.backbones[0].n_features
        self.output_dim = len(self.image_keys) * n_features + self.low_dim_size

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """{key: (N, ...)} -> (N, output_dim)."""
        features = []
        for i, key in enumerate(self.image_keys):
            backbone = self.backbones[0 if self.share_backbone else i]
            features.append(backbone(self._prepare(obs[key])))
        features += [obs[key].flatten(1) for key in self.low_dim_keys]
        return torch.cat(features, dim=-1)

    def _prepare(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] -> (N, 3, h, w) inputs of the network."""
        if self.resize is not None and images.shape[-2:] != self.resize:
            images = F.interpolate(images, self.resize, mode="bilinear", antialias=True)
        return self.crop(images) * self.scale + self.shift


def require_images(encoder: ObsEncoder) -> None:
    """Refuse a task without images."""
    if not encoder.image_keys:
        raise UserError(
            f"shape_meta.obs has no rgb key, only {', '.join(encoder.low_dim_keys)}; "
            "use policy/obs_encoder=low_dim"
        )


def check_size(name: str, size: Sequence[int]) -> tuple[int, int]:
    """(h, w) from a config, or a UserError about ``policy.obs_encoder.<name>``."""
    is_list = isinstance(size, Sequence) and not isinstance(size, str)
    fits = is_list and len(size) == 2 and all(isinstance(n, int) and n >= 1 for n in size)
    shown = list(size) if is_list else size
    require(fits, f"{_FIELD}.{name}", shown, "use [height, width], whole numbers from 1")
    return int(size[0]), int(size[1])


def build_crop(crop: Sequence[int] | float) -> Crop:
    """The crop of a config: a size, or a share of the sides; UserError if it is neither."""
    if isinstance(crop, Sequence):
        return Crop(check_size("crop", crop))
    remedy = "use [height, width], or a share of the sides, above 0 and at most 1"
    require(type(crop) in (int, float) and 0 < crop <= 1, f"{_FIELD}.crop", crop, remedy)
    return Crop(crop)


def check_crop(crop: tuple[int, int], image: Sequence[int]) -> None:
    """Refuse a crop (h, w) larger than the image (H, W)."""
    fits = crop[0] <= image[0] and crop[1] <= image[1]
    require(fits, f"{_FIELD}.crop", list(crop), f"use at most {list(image)}, the size of the image")


def _backbone(name: str, weights: str | None, group_norm: bool) -> nn.Module:
    backbone = build_backbone(
        f"{_FIELD}.backbone", f"{_FIELD}.weights", name, weights, nn.BatchNorm2d, group_norm
    )
    backbone.n_features = backbone.fc.in_features
    backbone.fc = nn.Identity()
    return backbone


def _from_unit_range(imagenet_norm: bool) -> tuple[Tensor, Tensor]:
    """Scale and shift (3, 1, 1) that take [-1, 1] to what the network is trained on."""
    if not imagenet_norm:
        return torch.ones(3, 1, 1), torch.zeros(3, 1, 1)
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    # ((x + 1) / 2 - mean) / std
    return 0.5 / std, (0.5 - mean) / std
