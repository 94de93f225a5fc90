"""robomimic's observation encoder: a ResNet-18 and spatial softmax for each camera."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import Tensor

from diffusion_policy.model.vision.group_norm import replace_batch_norm
from diffusion_policy.model.vision.obs_encoder import ObsEncoder, build_crop, require_images
from diffusion_policy.util.errors import UserError, require

N_KEYPOINTS = 32
FEATURES_PER_IMAGE = 64


class RobomimicObsEncoder(ObsEncoder):
    """robomimic's ``ObservationEncoder``, with its defaults for images.

    Each image is cropped (at random in training mode, from the centre otherwise) and goes through
    a ResNet-18 without pooling, a spatial softmax of 32 keypoints, a linear layer to 64 features
    and a ReLU; low-dim observations pass as they are. Features follow the order of the config.

    The network is ``encoder``, its parameters bear robomimic's own names
    (``encoder.obs_nets.<key>.backbone.nets.0.weight``, ...).

    Args:
        shape_meta: observations of the task, at least one of them rgb.
        crop: [h, w] or a share of the sides, smaller than the images; None takes the whole image.
        group_norm: GroupNorm instead of BatchNorm, as weights averaged over training need.

    Raises:
        UserError: robomimic is not installed, there is no image, or the crop does not fit.
    """

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        crop: Sequence[int] | float | None = None,
        group_norm: bool = True,
    ) -> None:
        super().__init__(shape_meta)
        require_images(self)
        # Ours crops like robomimic's own, which several processes could not draw as one.
        self.crop = None if crop is None else build_crop(crop)
        obs_nets = _import_robomimic()
        self.encoder = obs_nets.ObservationEncoder()
        for key, field in self.shape_meta.obs.items():
            shape = list(field.shape)
            if field.type == "low_dim":
                self.encoder.register_obs_key(key, shape or [1])
                continue
            if self.crop is not None:
                size = self.crop.of(*shape[1:])
                _check_smaller(size, shape[1:])
                shape = [shape[0], *size]
            self.encoder.register_obs_key(
                key, shape, net_class="VisualCore", net_kwargs=_image_network(shape)
            )
        with warnings.catch_warnings():
            # It asks torchvision for random weights by a deprecated argument.
            warnings.simplefilter("ignore", UserWarning)
            self.encoder.make()
        if group_norm:
            replace_batch_norm(self.encoder)
        self.output_dim = int(self.encoder.output_shape()[0])

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """{key: (N, ...)} -> (N, output_dim)."""
        if self.crop is not None:
            cropped = {key: self.crop(obs[key]) for key in self.shape_meta.keys_of("VISUAL")}
            obs = {**obs, **cropped}
        return self.encoder(obs)

    def __repr__(self) -> str:
        # robomimic's own fails unless its global table of observations was filled.
        shapes = {key: list(field.shape) for key, field in self.shape_meta.obs.items()}
        return f"{type(self).__name__}({shapes} -> {self.output_dim})"


def _image_network(shape: list[int]) -> dict[str, Any]:
    """Settings of the network of one camera."""
    return {
        "input_shape": shape,
        "backbone_class": "ResNet18Conv",
        "backbone_kwargs": {"pretrained": False, "input_coord_conv": False},
        "pool_class": "SpatialSoftmax",
        "pool_kwargs": {
            "num_kp": N_KEYPOINTS,
            "temperature": 1.0,
            "learnable_temperature": False,
            "noise_std": 0.0,
        },
        "feature_dimension": FEATURES_PER_IMAGE,
    }


def _import_robomimic() -> ModuleType:
    """Its module of encoders, which imports no simulator."""
    try:
        # At its first import it prints advice on a file of private settings.
        with contextlib.redirect_stdout(io.StringIO()):
            from robomimic.models import obs_nets
    except ImportError as error:
        raise UserError(
            f"policy.obs_encoder is hybrid and needs robomimic ({error}); "
            "pip install 'diffusion_policy[robomimic]' or use policy/obs_encoder=plain"
        ) from error
    return obs_nets


def _check_smaller(crop: tuple[int, int], image: Sequence[int]) -> None:
    """robomimic draws the position of a crop from at least one free row and column."""
    require(
        crop[0] < image[0] and crop[1] < image[1],
        "policy.obs_encoder.crop",
        list(crop),
        f"use less than {list(image)}, the size of the image, or null for no crop",
    )
