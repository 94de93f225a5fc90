from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from diffusion_policy.checkpoint.saved_policy import load_policy
from diffusion_policy.interop.dot_checkpoint import load_dot_checkpoint
from diffusion_policy.policy.dot_policy import DOTPolicy
from diffusion_policy.scripts.import_checkpoint import main
from diffusion_policy.util.errors import UserError
from tests.reference import golden, reference_shapes, reference_weights

LEROBOT_META = {
    "obs": {
        "agent_pos": {"shape": [2]},
        "environment_state": {"shape": [16], "modality": "ENV"},
    },
    "action": {"shape": [2]},
}
IMAGE_META = {
    "obs": {"agent_pos": {"shape": [2]}, "image": {"shape": [3, 96, 96], "type": "rgb"}},
    "action": {"shape": [2]},
}


def public_checkpoint(path, case: str):
    """A file with the names and shapes of the public ones and the reference's weights."""
    entries = {f"model.{name}": value for name, value in reference_weights(f"dot/{case}").items()}
    shapes = reference_shapes(f"dot/{case}")
    for name in ("decoder_pos", "decoder_pos_inf", "mask"):
        entries[f"model.{name}"] = torch.zeros(shapes[name])
    limits = {"min": 0.0, "max": 512.0}
    low_dim = {
        "normalize_inputs.buffer_observation_state": 2,
        "unnormalize_outputs.buffer_action": 2,
    }
    if case == "keypoints":
        low_dim["normalize_inputs.buffer_observation_environment_state"] = 16
    else:
        camera = "normalize_inputs.buffer_observation_image"
        entries[f"{camera}.mean"] = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        entries[f"{camera}.std"] = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    for buffer, size in low_dim.items():
        for name, value in limits.items():
            entries[f"{buffer}.{name}"] = torch.full((size,), value)
    save_file(entries, path)
    return path


@pytest.mark.parametrize(("case", "meta"), [("keypoints", LEROBOT_META), ("image", IMAGE_META)])
def test_imported_policy_predicts_like_the_reference(tmp_path, case, meta):
    policy = DOTPolicy(meta).eval()
    load_dot_checkpoint(policy, public_checkpoint(tmp_path / "model.safetensors", case))
    record = golden(f"dot_{case}")
    # The reference's inputs are normalised ones; these raw inputs normalise to them.
    obs = {"agent_pos": (torch.tensor(record["observation__state"]) + 1) * 256}
    if case == "keypoints":
        obs["environment_state"] = (
            torch.tensor(record["observation__environment_state"]) + 1
        ) * 256
        expected = (torch.tensor(record["output_eval"]) + 1) * 256
        predicted = policy.predict_action(obs)["action_pred"]
        torch.testing.assert_close(predicted, expected, atol=256e-5, rtol=0)
    else:
        white = torch.full((2, 3, 3, 96, 96), 255, dtype=torch.uint8)
        inputs = policy._network_inputs({**obs, "image": white}, policy.normalizer)
        normalised = inputs["images"][0, 0, :, 0, 0]
        expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
        torch.testing.assert_close(normalised, expected)


@pytest.mark.slow
def test_script_writes_a_checkpoint_that_deploys(tmp_path, capsys):
    source = public_checkpoint(tmp_path / "model.safetensors", "keypoints")
    name = ["--config-name", "train_dot_pusht_lerobot"]
    main([str(source), str(tmp_path / "dot.ckpt"), *name, "policy.predict_every_n=2"])
    policy, cfg = load_policy(tmp_path / "dot.ckpt")
    # As published, but for what was asked for.
    follower = policy.follower
    assert (cfg.policy.alpha, follower.stall_skip, follower.predict_every_n) == (0.75, 0, 2)
    assert cfg.task.name == "pusht_lerobot"
    weight = reference_weights("dot/keypoints")["action_head.weight"]
    assert torch.equal(policy.model.action_head.weight, weight)
    assert "eval.py --checkpoint" in capsys.readouterr().out


def test_file_of_other_settings_is_refused(tmp_path):
    source = public_checkpoint(tmp_path / "model.safetensors", "keypoints")
    with pytest.raises(UserError, match=r"model\.\S+ has shape .* in the file and"):
        load_dot_checkpoint(DOTPolicy(IMAGE_META), source)


def test_damaged_file_is_refused(tmp_path):
    source = public_checkpoint(tmp_path / "model.safetensors", "keypoints")
    source.write_bytes(source.read_bytes()[:5000])
    with pytest.raises(UserError, match="is damaged"):
        load_dot_checkpoint(DOTPolicy(LEROBOT_META), source)
