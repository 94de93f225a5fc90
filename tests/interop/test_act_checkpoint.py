"""ACT policies of LeRobot act here as they did there."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from safetensors.torch import load_file, save_file

from diffusion_policy.agent.local import load_agent
from diffusion_policy.checkpoint.saved_policy import load_policy
from diffusion_policy.interop.act_checkpoint import import_act
from diffusion_policy.scripts.import_checkpoint import main
from diffusion_policy.util.errors import UserError
from tests.reference import GOLDEN, golden

VERSIONS = ("0.3.3", "0.4.4")


def copy_of(version: str, tmp_path):
    folder = tmp_path / "pretrained_model"
    shutil.copytree(GOLDEN / "act" / f"checkpoint_lerobot_{version}", folder)
    return folder


def change(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_an_imported_policy_acts_as_it_did(version, tmp_path, capsys):
    main([str(GOLDEN / "act" / f"checkpoint_lerobot_{version}"), str(tmp_path / "out.ckpt")])
    assert "act with load_agent" in capsys.readouterr().out
    record = golden(f"act/checkpoint_lerobot_{version}_expected")
    policy, cfg = load_policy(tmp_path / "out.ckpt")
    assert cfg.policy.temporal_ensemble_coeff is None
    observations = [
        {"observation.state": state, "observation.environment_state": environment}
        for state, environment in zip(
            record["obs_state"], record["obs_environment_state"], strict=True
        )
    ]
    for observation, chunk in zip(observations, record["chunk_per_obs"], strict=True):
        policy.reset()
        batch = {key: torch.tensor(value)[None, None] for key, value in observation.items()}
        predicted = policy.predict_action(batch)["action_pred"][0]
        torch.testing.assert_close(predicted, torch.tensor(chunk), atol=1e-5, rtol=1e-5)
    agent = load_agent(tmp_path / "out.ckpt")
    actions = [agent.act(observation).action[0] for observation in observations]
    np.testing.assert_allclose(actions, record["select_action"], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_images_are_normalised_from_bytes(tmp_path):
    folder = copy_of("0.3.3", tmp_path)
    camera = "observation.images.top"
    config = json.loads((folder / "config.json").read_text())
    features = {**config["input_features"], camera: {"type": "VISUAL", "shape": [3, 32, 32]}}
    change(folder, input_features=features, dim_model=16)
    from diffusion_policy.interop.act_checkpoint import _our_config
    from diffusion_policy.interop.foreign_config import ForeignSection
    from diffusion_policy.policy.build_policy import build_policy

    cfg, _ = _our_config(ForeignSection("config", json.loads((folder / "config.json").read_text())))
    fresh = build_policy(cfg.policy, None)
    weights = load_file(folder / "model.safetensors")
    network = {f"model.{name}": value for name, value in fresh.model.state_dict().items()}
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.full((3, 1, 1), 0.25)
    prefix = "normalize_inputs.buffer_observation_images_top"
    save_file(
        {**weights, **network, f"{prefix}.mean": mean, f"{prefix}.std": std},
        folder / "model.safetensors",
    )
    policy = import_act(folder).policy
    white = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    found = policy.normalizer[camera].normalize(white)[0, :, 0, 0]
    torch.testing.assert_close(found, ((1 - mean) / std).flatten(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "diffusion"}, "config.type is 'diffusion'; only 'act' can be imported"),
        ({"n_obs_steps": 2}, "config.n_obs_steps is 2; only 1"),
        ({"vision_backbone": "vit"}, "config.vision_backbone is 'vit'; only 'resnet18'"),
        ({"feedforward_activation": "glu"}, "feedforward_activation is 'glu'; only 'relu'"),
        ({"magic": 1}, "config.magic is 1; this setting is unknown"),
        ({"dim_feedforward": 32}, r"has shape \(24"),
        ({"dim_feedforward": 900_000}, "many times as large"),
        ({"n_encoder_layers": 10**7}, "may be 1000000 at most"),
        ({"chunk_size": "8"}, "config.chunk_size is '8'; a resolved config has int there"),
        ({"normalization_mapping": {"STATE": "ZSCORE"}}, "mapping.STATE is 'ZSCORE'; only"),
        ({"output_features": {}}, "only the one feature action can be imported"),
    ],
)
def test_settings_without_a_counterpart_are_refused(tmp_path, settings, message):
    folder = copy_of("0.4.4", tmp_path)
    change(folder, **settings)
    with pytest.raises((UserError, InstantiationException), match=message):
        import_act(folder)


@pytest.mark.slow
def test_files_that_are_missing_or_elsewhere_are_refused(tmp_path):
    folder = copy_of("0.4.4", tmp_path)
    processor = folder / "policy_preprocessor.json"
    text = processor.read_text()
    processor.write_text(
        text.replace("policy_preprocessor_step_3", "../policy_preprocessor_step_3")
    )
    with pytest.raises(
        UserError, match=r"names the file '\.\./.* elsewhere; copy the whole folder"
    ):
        import_act(folder)
    processor.unlink()
    with pytest.raises(
        UserError, match=r"policy_preprocessor\.json does not exist; copy the whole"
    ):
        import_act(folder)
    (folder / "policy_postprocessor.json").unlink()
    with pytest.raises(UserError, match=r"no statistic mean of observation.state with shape"):
        import_act(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        import_act(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors does not exist"):
        import_act(folder)
