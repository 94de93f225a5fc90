import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from diffusion_policy.model.vision.backbone import build_backbone, save_backbone
from diffusion_policy.util.errors import UserError

GROUP_NORM = {"norm_layer": nn.BatchNorm2d, "group_norm": True}


def build(name: str, weights: str | None = None, **options) -> nn.Module:
    return build_backbone("policy.backbone", "policy.backbone_weights", name, weights, **options)


def features(backbone: nn.Module, images: torch.Tensor) -> torch.Tensor:
    backbone.fc = nn.Identity()
    return backbone.eval()(images)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "written", "read"),
    [
        ("keypoint_cnn", {}, {}),
        ("resnet18", {"norm_layer": nn.BatchNorm2d}, {"norm_layer": nn.BatchNorm2d}),
        ("resnet18", {"norm_layer": nn.BatchNorm2d}, {}),  # frozen norms keep no count
        ("resnet18", {}, {"norm_layer": nn.BatchNorm2d}),
        ("resnet18", GROUP_NORM, GROUP_NORM),
    ],
)
def test_weights_of_a_file_give_the_same_features(name, written, read, tmp_path):
    path = tmp_path / "weights.safetensors"
    backbone = build(name, **written)
    backbone.fc = nn.Linear(3, 1)  # of a task of its own
    for statistics in backbone.buffers():
        statistics.add_(torch.rand(statistics.shape).to(statistics.dtype))
    save_backbone(backbone, path, {"from": "a test"})
    assert not any(key.startswith("fc.") for key in load_file(path))
    again = build(name, str(path), **read)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(
        features(again, images), features(backbone, images), rtol=1e-4, atol=1e-4
    )


@pytest.mark.slow
def test_files_that_do_not_fit_are_refused(tmp_path):
    other, damaged = tmp_path / "other.safetensors", tmp_path / "damaged.safetensors"
    save_backbone(build("resnet18"), other, {})
    damaged.write_bytes(other.read_bytes()[:100])
    with pytest.raises(UserError, match=r"backbone_weights is '.*', which holds weights of anoth"):
        build("keypoint_cnn", str(other))
    with pytest.raises(UserError, match=r"backbone_weights is '.*': .* is damaged"):
        build("resnet18", str(damaged))
    with pytest.raises(UserError, match=r"backbone_weights is '.*', which .* with the same norms"):
        build("resnet18", str(other), **GROUP_NORM)
    with pytest.raises(UserError, match=r"backbone_weights is 'none.*': none.* does not exist"):
        build("resnet18", "none.safetensors")


@pytest.mark.parametrize("name", ["resnet18", "keypoint_cnn"])
@pytest.mark.parametrize("weights", ["IMAGENET", "weights.pt"])
def test_names_that_are_not_known_are_refused(name, weights):
    with pytest.raises(UserError, match=f"backbone_weights is '{weights}'; for {name} use .*null"):
        build(name, weights)
