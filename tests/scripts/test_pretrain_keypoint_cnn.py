from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from diffusion_policy.model.vision.backbone import build_backbone
from diffusion_policy.model.vision.keypoint_cnn import KeypointCNN
from diffusion_policy.scripts import pretrain_keypoint_cnn
from diffusion_policy.scripts.pretrain_keypoint_cnn import Locator, draw_scenes, locate, train

PRETRAINED = Path(__file__).parents[2] / "data/pretrained/keypoint_cnn_pusht/backbone.safetensors"


@pytest.mark.slow
def test_steps_bring_the_answers_closer():
    torch.manual_seed(0)
    images, places = draw_scenes(64, np.random.default_rng(0))
    locator = Locator(KeypointCNN(), 20)

    def error() -> torch.Tensor:
        return (locate(locator, images) - places).abs().mean()

    before = error()
    train(locator, images, places, steps=80, batch_size=8)
    assert error() < 0.8 * before


@pytest.mark.slow
def test_writes_what_a_policy_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pretrain_keypoint_cnn, "_N_HELD_OUT", 8)
    path = tmp_path / "deep" / "cnn.safetensors"
    arguments = [f"--output={path}", "--scenes=8", "--steps=1", "--batch-size=4", "--device=cpu"]
    pretrain_keypoint_cnn.main(arguments)
    build_backbone("policy.backbone", "policy.backbone_weights", "keypoint_cnn", str(path))
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    with safe_open(path, "pt") as file:
        told = file.metadata()["error on new scenes"]
    assert told in capsys.readouterr().out
    with pytest.raises(SystemExit):
        pretrain_keypoint_cnn.main(arguments)
    assert "cnn.safetensors exists; choose another --output" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--steps=0", "--steps is 0; use at least 1"),
        ("--output=x.pt", "ends with .safetensors"),
        ("--seed=-1", "--seed is -1; use 0"),
    ],
)
def test_impossible_options_are_refused(option, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        pretrain_keypoint_cnn.main([f"--output={tmp_path / 'cnn.safetensors'}", option])
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_weights_in_the_repository_tell_places():
    """A linear map of the features, fitted to 300 scenes, finds the positions in 100 others."""
    backbone = build_backbone("", "", "keypoint_cnn", str(PRETRAINED))
    locator = Locator(backbone, 20)
    locator.backbone.fc = torch.nn.Identity()
    images, places = draw_scenes(400, np.random.default_rng(1))
    features = torch.cat([locate(locator, images), torch.ones(400, 1)], dim=1).double()
    found = torch.linalg.lstsq(features[:300], places[:300].double()).solution
    error = (features[300:] @ found - places[300:]).abs().mean()
    assert error < 4  # of 512 units
