"""Images in another size."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np

from diffusion_policy.spec.batch import Batch
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.transforms.parts import find_field, map_key, with_field
from diffusion_policy.transforms.transform import Transform
from diffusion_policy.util.errors import UserError

_MOST_PIXELS = 50_000_000
"""More than cameras have: a transform may come in a file, and its size is memory."""


@dataclass(frozen=True)
class _ImageTransform(Transform):
    """Gives images a new size.

    Attributes:
        height: of the result, in pixels.
        width: of the result, in pixels.
        keys: rgb and depth observations to change; () is all of them.
    """

    height: int
    width: int
    keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", tuple(self.keys))
        if not (min(self.height, self.width) >= 1 and self.height * self.width <= _MOST_PIXELS):
            raise UserError(
                f"{type(self).__name__} has height {self.height} and width {self.width}; "
                f"use at least 1 pixel, and at most {_MOST_PIXELS:,} in all"
            )

    def spec(self, spec: TaskSpec) -> TaskSpec:
        for key in self.keys_in(spec):
            field = find_field(spec, key)
            if field.type not in ("rgb", "depth"):
                raise UserError(
                    f"{type(self).__name__}.keys has {key!r}, which is {field.type}; name images"
                )
            self._check(key, *field.shape[1:])
            shape = (field.shape[0], self.height, self.width)
            spec = with_field(spec, key, replace(field, shape=shape))
        return spec

    def forward(self, batch: Batch, spec: TaskSpec) -> Batch:
        for key in self.keys_in(spec):
            change = partial(self._images, is_depth=spec.obs[key].type == "depth")
            batch = map_key(batch, key, change)
        return batch

    def keys_in(self, spec: TaskSpec) -> tuple[str, ...]:
        """Observations of this task that it changes."""
        images = (key for key, field in spec.obs.items() if field.type in ("rgb", "depth"))
        return self.keys or tuple(images)

    def _check(self, key: str, height: int, width: int) -> None:
        """Raise UserError where an image of this size cannot be changed."""

    @abstractmethod
    def _images(self, images: np.ndarray, is_depth: bool) -> np.ndarray:
        """(..., C, height, width), from (..., C, H, W)."""


class Resize(_ImageTransform):
    """Scales images; the aspect ratio becomes that of the result.

    Pixels of smaller images are means over areas, those of larger ones interpolate. Depths are not
    mixed: each is that of the nearest pixel.
    """

    def _images(self, images: np.ndarray, is_depth: bool) -> np.ndarray:
        return resized(images, self.height, self.width, is_depth)


def resized(images: np.ndarray, height: int, width: int, is_depth: bool = False) -> np.ndarray:
    """Images (..., C, height, width) from (..., C, H, W), as :class:`Resize` scales them."""
    if images.shape[-2:] == (height, width):
        return images
    shrinks = height <= images.shape[-2] and width <= images.shape[-1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    if is_depth:
        method = cv2.INTER_NEAREST
    # Channel by channel: OpenCV would need channels last, and moving them takes longer.
    planes = images.reshape(-1, *images.shape[-2:])
    scaled = np.empty((len(planes), height, width), images.dtype)
    for plane, out in zip(planes, scaled, strict=True):
        cv2.resize(plane, (width, height), dst=out, interpolation=method)
    return scaled.reshape(*images.shape[:-2], height, width)


class CenterCrop(_ImageTransform):
    """Cuts the middle out of images."""

    def _check(self, key: str, height: int, width: int) -> None:
        if self.height > height or self.width > width:
            raise UserError(
                f"CenterCrop asks for {self.height} x {self.width} of {key!r}, which is "
                f"{height} x {width}; use a smaller crop, or Resize first"
            )

    def _images(self, images: np.ndarray, is_depth: bool) -> np.ndarray:
        height, width = images.shape[-2:]
        top, left = (height - self.height) // 2, (width - self.width) // 2
        cropped = images[..., top : top + self.height, left : left + self.width]
        return np.ascontiguousarray(cropped)
