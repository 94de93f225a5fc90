"""The network against the numbers that LeRobot's and the original ACT gave."""

from __future__ import annotations

import json
from unittest.mock import patch

import numpy as np
import pytest
import torch

from diffusion_policy.model.act.act_network import ACTNetwork, positions_2d
from diffusion_policy.model.common import batch_random
from diffusion_policy.util.errors import UserError
from tests.reference import GOLDEN, RULES, golden, reference_input, weights_by_rule

SETTINGS = json.loads((GOLDEN / "act" / "settings.json").read_text())
TABLE = "vae_encoder_pos_enc"  # of sinusoids: it counts in the rules, and we compute it
NOT_OURS = ("use_vae_at_inference", "kl_weight", "vision_backbone", "features")


def shapes_of(network: ACTNetwork) -> dict[str, tuple[int, ...]]:
    """Names and shapes of LeRobot's state_dict."""
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    return {**shapes, TABLE: (1,)} if network.use_vae else shapes


def set_weights(network: ACTNetwork, rule: str) -> None:
    weights = weights_by_rule(shapes_of(network), RULES[rule], left_out={TABLE})
    network.load_state_dict(weights)


def build(name: str, rule: str) -> ACTNetwork:
    settings = SETTINGS["configs"][name]
    features = settings["features"]
    network = ACTNetwork(
        state_dim=features["observation.state"][0],
        environment_state_dim=features.get("observation.environment_state", [0])[0],
        n_cameras=sum("images" in key for key in features),
        action_dim=features["action"][0],
        **{key: value for key, value in settings.items() if key not in NOT_OURS},
    )
    set_weights(network, rule)
    return network


def inputs_of(name: str, phase: float) -> dict:
    if name == "image":
        images = [reference_input((3, 3, 64, 96), phase + 3 + i) for i in range(2)]
        return {"state": reference_input((3, 4), phase), "images": images}
    environment = reference_input((3, 3), phase + 1)
    return {"state": reference_input((3, 4), phase), "environment_state": environment}


def close(found, expected, tolerance=1e-5):
    expected = torch.as_tensor(expected)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=1e-5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name == "image" else [])
        for name in SETTINGS["configs"]
    ],
)
def test_outputs_and_gradients_are_those_of_lerobot(name, rule):
    record, network = golden(f"act/act_{name}{rule}"), build(name, rule)
    phase, noise = float(record["phase"]), torch.tensor(record["eps"])
    inputs, actions = inputs_of(name, phase), reference_input((3, 8, 5), phase + 2)
    is_pad = torch.tensor(record["action_is_pad"])
    with torch.no_grad():
        close(network(inputs)[0], record["inference"], 1e-4 if name == "image" else 1e-5)
    with patch.object(batch_random, "randn", lambda *_: noise):
        predicted, latent = network.train()(inputs, actions, is_pad)
    close(predicted, record["actions_hat"], 1e-4 if name == "image" else 1e-5)
    l1 = ((predicted - actions).abs() * ~is_pad[..., None]).mean()
    torch.testing.assert_close(l1.item(), float(record["l1_loss"]), rtol=1e-5, atol=0)
    loss = l1
    assert (latent is None) == (name == "state_novae")
    if latent is not None:
        close(latent.mean, record["mu"])
        close(latent.log_variance, record["log_sigma_x2"])
        divergence = latent.divergence().mean()
        torch.testing.assert_close(divergence.item(), float(record["kld_loss"]), rtol=1e-5, atol=0)
        loss = l1 + SETTINGS["configs"][name]["kl_weight"] * divergence
    loss.backward()
    norms = {
        "total": list(network.parameters()),
        "action_head": [network.action_head.weight],
        "encoder_latent": [network.encoder_latent_input_proj.weight],
    }
    for part, parameters in norms.items():
        norm = torch.stack([p.grad.norm() for p in parameters]).norm().item()
        expected = float(record[f"grad_norm_{part}"])
        assert norm == pytest.approx(expected, rel=1e-4 if name == "image" else 1e-5, abs=1e-7)


def test_names_and_shapes_are_those_of_lerobot():
    with torch.device("meta"):
        network = ACTNetwork(
            state_dim=14, environment_state_dim=0, n_cameras=1, action_dim=14, chunk_size=100
        )
    expected = {
        name.removeprefix("model."): tuple(shape)
        for name, shape in SETTINGS["aloha_default"].items()
        if not name.endswith(TABLE)
    }
    found = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert found == expected


def original_names() -> dict[str, str | None]:
    """LeRobot's name, or None, of each entry of the original's state_dict, of the tiny form."""
    tiny = SETTINGS["original_tiny"]
    stacks = {"transformer.decoder.layers.": tiny["dec_layers"]}
    stacks |= dict.fromkeys(["encoder.layers.", "transformer.encoder.layers."], tiny["enc_layers"])
    names = {}
    for name, other in SETTINGS["original_names"].items():
        name, other = name.removeprefix("model."), other and other.removeprefix("model.")
        stack = next((stack for stack in stacks if name.startswith(stack)), None)
        number = int(name.removeprefix(stack).split(".")[0]) if stack else -1
        if number < stacks.get(stack, 0):
            names[name] = other
    return names


@pytest.mark.slow
def test_outputs_are_those_of_the_original():
    tiny, record = SETTINGS["original_tiny"], golden("act/original_act_tiny")
    network = ACTNetwork(
        state_dim=14,
        environment_state_dim=0,
        n_cameras=tiny["cameras"],
        action_dim=14,
        chunk_size=tiny["num_queries"],
        dim_model=tiny["hidden_dim"],
        n_heads=tiny["nheads"],
        dim_feedforward=tiny["dim_feedforward"],
        n_encoder_layers=tiny["enc_layers"],
        n_vae_encoder_layers=tiny["enc_layers"],
        dropout=0.0,
    )
    ours, names = shapes_of(network), original_names()
    shapes = {name: ours.get(other, (1,)) for name, other in names.items()}
    unused = {name for name, other in names.items() if other is None or other == TABLE}
    weights = weights_by_rule(shapes, RULES["_b"], left_out=unused)
    network.load_state_dict({names[name]: value for name, value in weights.items()})
    phase = float(record["phase"])
    noise = reference_input((2, 32), phase + 5)
    images = reference_input((2, 2, 3, 64, 96), phase + 3).unbind(1)
    inputs = {"state": torch.tensor(record["qpos"]), "images": images}
    actions, is_pad = reference_input((2, 8, 14), phase + 2), torch.tensor(record["action_is_pad"])
    with torch.no_grad(), patch.object(batch_random, "randn", lambda *_: noise):
        close(network(inputs)[0], record["inference"], 1e-4)
        predicted, latent = network(inputs, actions, is_pad)
    close(predicted, record["actions_hat"], 1e-4)
    close(latent.mean, record["mu"], 1e-4)
    close(latent.log_variance, record["logvar"], 1e-4)
    l1 = ((predicted - actions).abs() * ~is_pad[..., None]).mean()
    assert l1.item() == pytest.approx(float(record["l1"]), rel=1e-5)
    assert latent.divergence().mean().item() == pytest.approx(float(record["kl"]), rel=1e-5)


def test_positions_tell_rows_from_columns():
    table = positions_2d(2, 3, 8).numpy()
    assert table.shape == (6, 8)
    rows, columns = np.array([1, 1, 1, 2, 2, 2]) / 2, np.array([1, 2, 3, 1, 2, 3]) / 3
    for axis, first in ((rows, 0), (columns, 4)):
        angle = 2 * np.pi * axis
        expected = [np.sin(angle), np.cos(angle), np.sin(angle / 100), np.cos(angle / 100)]
        np.testing.assert_allclose(table[:, first : first + 4], np.stack(expected, 1), atol=1e-4)


def test_padded_actions_do_not_change_the_latent():
    network = build("state", "_b").eval()
    inputs, actions = inputs_of("state", 0.3), reference_input((3, 8, 5), 1.0)
    is_pad = torch.arange(8).expand(3, -1) >= 5
    other = actions.clone()
    other[is_pad] += 1
    first, second = (network.infer_latent(inputs, x, is_pad).mean for x in (actions, other))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim_model": 30}, "dim_model is 30; use a multiple of 4"),
        ({"n_heads": 5}, "n_heads is 5; use a number that divides"),
        ({"feedforward_activation": "glu"}, "feedforward_activation is 'glu'; use relu or gelu"),
        ({"backbone": "keypoint_cnn", "n_cameras": 1}, "backbone is 'keypoint_cnn'; use resnet18"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    sizes = {"state_dim": 2, "environment_state_dim": 3, "n_cameras": 0, "action_dim": 2}
    with pytest.raises(UserError, match=message):
        ACTNetwork(**{**sizes, "chunk_size": 4, "dim_model": 32, "n_heads": 4, **settings})
