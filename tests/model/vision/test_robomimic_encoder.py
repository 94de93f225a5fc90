import subprocess
import sys

import pytest
import torch
from torch import nn

from diffusion_policy.model.vision.robomimic_encoder import RobomimicObsEncoder
from diffusion_policy.util.errors import UserError

IMAGE = {"shape": [3, 84, 84], "type": "rgb"}
SQUARE = {
    "obs": {
        "agentview_image": IMAGE,
        "robot0_eye_in_hand_image": IMAGE,
        "robot0_eef_pos": {"shape": [3]},
        "robot0_eef_quat": {"shape": [4]},
        "robot0_gripper_qpos": {"shape": [2]},
    },
    "action": {"shape": [7]},
}
N_FEATURES = 64 + 64 + 3 + 4 + 2


@pytest.fixture
def observations():
    torch.manual_seed(0)
    return {key: torch.rand(2, *field["shape"]) * 2 - 1 for key, field in SQUARE["obs"].items()}


@pytest.fixture
def robomimic():
    return pytest.importorskip("robomimic", reason="the robomimic extra is not installed")


@pytest.mark.usefixtures("robomimic")
@pytest.mark.parametrize("crop", [[76, 76], None])
def test_square_gives_137_features(observations, crop):
    encoder = RobomimicObsEncoder(SQUARE, crop=crop)
    features = encoder(observations)
    assert encoder.output_dim == N_FEATURES == 137
    assert features.shape == (2, N_FEATURES)
    low_dim = [observations[key] for key in list(SQUARE["obs"])[2:]]
    assert torch.equal(features[:, 128:], torch.cat(low_dim, dim=1))
    features[:, :128].sum().backward()
    assert encoder.encoder.obs_nets["agentview_image"].backbone.nets[0].weight.grad.any()


@pytest.mark.usefixtures("robomimic")
def test_crops_are_random_in_training_and_centred_in_evaluation(observations):
    encoder = RobomimicObsEncoder(SQUARE, crop=[76, 76])
    with torch.no_grad():
        assert not torch.equal(encoder(observations), encoder(observations))
        evaluated = encoder.eval()(observations)
        for key in ("agentview_image", "robot0_eye_in_hand_image"):
            # The border of 4 pixels is cut away, so nothing there can matter.
            border = torch.ones(84, 84, dtype=torch.bool)
            border[4:80, 4:80] = False
            observations[key] = observations[key].masked_fill(border, 7.0)
        torch.testing.assert_close(encoder(observations), evaluated)


@pytest.mark.usefixtures("robomimic")
@pytest.mark.parametrize(("group_norm", "layer"), [(True, nn.GroupNorm), (False, nn.BatchNorm2d)])
def test_norm_layers(group_norm, layer):
    encoder = RobomimicObsEncoder(SQUARE, crop=[76, 76], group_norm=group_norm)
    norms = [m for m in encoder.modules() if isinstance(m, nn.GroupNorm | nn.BatchNorm2d)]
    assert len(norms) == 2 * 20
    assert all(isinstance(norm, layer) for norm in norms)


@pytest.mark.usefixtures("robomimic")
def test_entries_bear_the_names_of_public_checkpoints():
    entries = RobomimicObsEncoder(SQUARE, crop=[76, 76]).state_dict()
    for key in ("agentview_image", "robot0_eye_in_hand_image"):
        net = f"encoder.obs_nets.{key}"
        assert entries[f"{net}.backbone.nets.0.weight"].shape == (64, 3, 7, 7)
        assert entries[f"{net}.backbone.nets.7.1.bn2.weight"].shape == (512,)
        assert entries[f"{net}.pool.nets.weight"].shape == (32, 512, 1, 1)
        assert entries[f"{net}.pool.pos_x"].shape == (1, 9)
        assert entries[f"{net}.nets.3.weight"].shape == (64, 64)
    names = {name.partition(".obs_nets.")[2].partition(".")[0] for name in entries}
    assert names == {"agentview_image", "robot0_eye_in_hand_image"}


@pytest.mark.usefixtures("robomimic")
def test_weights_travel_in_the_state_dict(observations, tmp_path):
    first, second = (RobomimicObsEncoder(SQUARE, crop=[76, 76]).eval() for _ in range(2))
    torch.save(first.state_dict(), tmp_path / "weights.pt")
    second.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    with torch.no_grad():
        assert torch.equal(first(observations), second(observations))


@pytest.mark.usefixtures("robomimic")
def test_it_can_be_printed():
    assert "-> 137" in repr(nn.Sequential(RobomimicObsEncoder(SQUARE)))


@pytest.mark.usefixtures("robomimic")
@pytest.mark.parametrize("crop", [[84, 76], [76, 90]])
def test_crop_must_be_smaller_than_the_image(crop):
    with pytest.raises(UserError, match=r"crop is \[\d+, \d+\]; use less than \[84, 84\]"):
        RobomimicObsEncoder(SQUARE, crop=crop)


@pytest.mark.slow
@pytest.mark.usefixtures("robomimic")
def test_it_needs_no_simulator_and_prints_nothing():
    program = (
        "import sys\n"
        "from diffusion_policy.model.vision.robomimic_encoder import _import_robomimic\n"
        "_import_robomimic()\n"
        "assert not {'robosuite', 'mujoco', 'mujoco_py', 'gym', 'egl_probe'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_missing_robomimic_names_the_extra(monkeypatch):
    for name in ("robomimic", "robomimic.models"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"pip install 'diffusion_policy\[robomimic\]'"):
        RobomimicObsEncoder(SQUARE)


def test_a_task_without_images():
    meta = {"obs": {"pos": {"shape": [3]}}, "action": {"shape": [2]}}
    with pytest.raises(UserError, match="no rgb key, only pos"):
        RobomimicObsEncoder(meta)
