import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffusion_policy.model.vision.obs_encoder import ImageObsEncoder, LowDimEncoder
from diffusion_policy.model.vision.resnet import IMAGENET_MEAN, IMAGENET_STD
from diffusion_policy.util.errors import UserError


def shape_meta(*image_sides, low_dim=((3,), (2, 2))):
    """Low-dim keys first, so that encoders must sort images to the front."""
    obs = {f"state.{i}": {"shape": list(shape)} for i, shape in enumerate(low_dim)}
    for i, side in enumerate(image_sides):
        obs[f"cam.{i}"] = {"shape": [3, side, side], "type": "rgb"}
    return {"obs": obs, "action": {"shape": [2]}}


def observations(meta, n=2):
    torch.manual_seed(0)
    return {key: torch.rand(n, *field["shape"]) * 2 - 1 for key, field in meta["obs"].items()}


def test_low_dim_keys_lie_side_by_side_in_config_order():
    meta = shape_meta()
    obs = observations(meta)
    encoder = LowDimEncoder(meta)
    shuffled = dict(reversed(obs.items()), other=torch.rand(2, 5))
    expected = torch.cat([obs["state.0"], obs["state.1"].reshape(2, 4)], dim=1)
    assert encoder.output_dim == 7
    assert torch.equal(encoder(shuffled), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "n_features"),
    [
        ({}, 512),
        ({"backbone": "resnet34", "group_norm": False}, 512),
        ({"backbone": "resnet50", "share_backbone": True}, 2048),
        ({"backbone": "keypoint_cnn"}, 128),
        ({"resize": [32, 40], "crop": [32, 32], "imagenet_norm": False}, 512),
    ],
)
def test_features_of_two_cameras_then_low_dim(settings, n_features):
    meta = shape_meta(48, 64)
    obs = observations(meta)
    encoder = ImageObsEncoder(meta, **settings)
    features = encoder(obs)
    assert encoder.output_dim == 2 * n_features + 7
    assert features.shape == (2, encoder.output_dim)
    assert torch.equal(features[:, 2 * n_features : -4], obs["state.0"])
    features[:, : 2 * n_features].sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())
    assert len(encoder.backbones) == (1 if settings.get("share_backbone") else 2)


@pytest.mark.parametrize("share", [True, False])
def test_cameras_share_weights_only_when_asked(share):
    encoder = ImageObsEncoder(shape_meta(40, 40), share_backbone=share).eval()
    image = torch.rand(2, 3, 40, 40)
    low_dim = {"state.0": torch.zeros(2, 3), "state.1": torch.zeros(2, 2, 2)}
    with torch.no_grad():
        features = encoder({"cam.0": image, "cam.1": image, **low_dim})
    assert torch.equal(features[:, :512], features[:, 512:1024]) == share


def test_images_are_resized_cropped_at_the_centre_then_normalised():
    meta = shape_meta(80, low_dim=())
    encoder = ImageObsEncoder(meta, resize=[50, 60], crop=[40, 44]).eval()
    image = observations(meta)["cam.0"]
    resized = F.interpolate((image + 1) / 2, (50, 60), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        expected = encoder.backbones[0]((resized[..., 5:45, 8:52] - mean) / std)
        torch.testing.assert_close(encoder({"cam.0": image}), expected, atol=1e-4, rtol=1e-4)


def test_crops_are_random_in_training_alone():
    meta = shape_meta(64, low_dim=())
    encoder = ImageObsEncoder(meta, crop=[33, 33])
    obs = {"cam.0": torch.rand(1, 3, 64, 64).expand(4, -1, -1, -1)}
    with torch.no_grad():
        assert encoder(obs).std(0).max() > 1e-3
        assert encoder.eval()(obs).std(0).max() < 1e-5


@pytest.mark.parametrize(("group_norm", "layer"), [(True, nn.GroupNorm), (False, nn.BatchNorm2d)])
def test_norm_layers(group_norm, layer):
    encoder = ImageObsEncoder(shape_meta(64), group_norm=group_norm)
    norms = [m for m in encoder.modules() if isinstance(m, nn.GroupNorm | nn.BatchNorm2d)]
    assert len(norms) == 20
    assert all(isinstance(norm, layer) for norm in norms)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": [65, 64]}, r"obs_encoder.crop is \[65, 64\]; use at most \[64, 64\]"),
        ({"crop": [40, 40], "resize": [48, 32]}, r"use at most \[48, 32\]"),
        ({"crop": [40]}, r"obs_encoder.crop is \[40\]; use \[height, width\]"),
        ({"crop": 40}, "obs_encoder.crop is 40; use"),
        ({"resize": [0, 40]}, r"obs_encoder.resize is \[0, 40\]; use"),
        ({"backbone": "vgg"}, "obs_encoder.backbone is 'vgg'; use one of resnet18"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(UserError, match=message):
        ImageObsEncoder(shape_meta(64), **settings)


def test_the_wrong_encoder_for_a_task():
    with pytest.raises(UserError, match=r"shape_meta.obs.cam.0.type is 'rgb'; .*plain"):
        LowDimEncoder(shape_meta(64))
    with pytest.raises(UserError, match=r"no rgb key, only state.0, state.1; .*low_dim"):
        ImageObsEncoder(shape_meta())
