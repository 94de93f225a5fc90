from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops.misc import FrozenBatchNorm2d

from diffusion_policy.model.common.normalizer import (
    LinearNormalizer,
    SingleFieldLinearNormalizer,
)
from diffusion_policy.model.vision.backbone import build_backbone, save_backbone
from diffusion_policy.policy.dot_policy import DOTPolicy, loss_weights
from diffusion_policy.util.errors import UserError
from tests.reference import golden

SHAPE_META = {
    "obs": {
        "agent_pos": {"shape": [2]},
        "keypoint": {"shape": [4], "modality": "ENV"},
    },
    "action": {"shape": [2]},
}
TINY = {"dim": 16, "n_heads": 2, "dim_feedforward": 32, "n_layers": 2}


def make_policy(**settings) -> DOTPolicy:
    torch.manual_seed(0)
    policy = DOTPolicy(SHAPE_META, **{**TINY, **settings})
    normalizer = LinearNormalizer()
    for key, size in {"agent_pos": 2, "keypoint": 4, "action": 2}.items():
        ones = torch.ones(size)
        normalizer[key] = SingleFieldLinearNormalizer.create_manual(
            ones / 256, -ones, {"min": 0 * ones, "max": 512 * ones, "mean": ones, "std": ones}
        )
    policy.set_normalizer(normalizer)
    return policy


def observation(n: int, seed: int, n_obs_steps: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.rand(n, n_obs_steps, size, generator=generator) * 512
        for key, size in {"agent_pos": 2, "keypoint": 4}.items()
    }


def make_batch(policy: DOTPolicy, n: int = 4) -> dict:
    steps = len(policy.window.action_offsets)
    pad = torch.zeros(n, steps, dtype=torch.bool)
    pad[:, -3:] = True
    return {
        "obs": observation(n, 1),
        "action": torch.rand(n, steps, 2, generator=torch.Generator().manual_seed(2)) * 512,
        "action_is_pad": pad,
    }


def test_weights_equal_reference():
    expected = golden("dot_weights")["loss_weights"]
    np.testing.assert_allclose(loss_weights(3, 20, 0.9), expected, atol=1e-5)


def test_window_is_the_published_one():
    window = make_policy().window
    assert window.obs_offsets == (-10, -1, 0)
    assert window.action_offsets == (-10, -1, *range(20))
    assert window.jitter == 5


def test_loss_is_the_formula_and_ignores_padding():
    policy = make_policy(dropout=0.0, state_noise=0.0)
    batch = make_batch(policy)
    loss, _ = policy.compute_loss(batch)
    target = batch["action"] / 256 - 1
    inputs = {
        "state": batch["obs"]["agent_pos"] / 256 - 1,
        "environment_state": batch["obs"]["keypoint"] / 256 - 1,
    }
    error = (policy.model(inputs) - target).abs() * ~batch["action_is_pad"][..., None]
    expected = (error * loss_weights(3, 20, 0.9)[:, None]).mean()
    torch.testing.assert_close(loss, expected)
    batch["action"][:, -3:] = 1e6
    torch.testing.assert_close(policy.compute_loss(batch)[0], loss)


class CountingNetwork(torch.nn.Module):
    """Predicts at step t that action k ahead is t + k."""

    n_training_only = 0

    def __init__(self, n_rows: int, horizon: int) -> None:
        super().__init__()
        self.t, self.n_rows, self.horizon = 0, n_rows, horizon

    def forward(self, _: dict) -> torch.Tensor:
        ahead = torch.arange(self.n_rows) - (self.n_rows - self.horizon)
        return (self.t + ahead.clamp(min=0)).float().view(1, -1, 1).expand(-1, -1, 2)


@pytest.mark.parametrize(
    ("predict_every_n", "return_every_n", "expected"),
    [
        (1, 1, [0, 1, 2, 3]),
        (2, 1, [0, 1, 2, 3]),
        (1, 2, [1, 2.468, 3.636, 4.636]),
        (1, 3, [2, 3.593, 4.593]),
        (2, 2, [1, 3, 3.936]),
    ],
)
def test_plans_are_followed_like_the_published_implementation(
    predict_every_n, return_every_n, expected
):
    """The expected numbers follow from the reference's loop: horizon 6, one unit per step."""
    policy = make_policy(
        train_horizon=6,
        inference_horizon=6,
        predict_every_n=predict_every_n,
        return_every_n=return_every_n,
    ).eval()
    parameter = policy.model.prefix_input
    policy.model = CountingNetwork(len(policy.window.action_offsets), 6)
    policy.model.prefix_input = parameter
    found = []
    for step in range(len(expected)):
        policy.model.t = step
        action = policy.predict_action(observation(1, 0))["action"][0, 0, 0]
        found.append((action / 256 - 1).item())
    assert found == pytest.approx(expected, abs=2e-3)


def follow_counting(steps: int, moves, **settings) -> tuple[DOTPolicy, torch.Tensor]:
    """Actions (steps, 3) of three environments; a plan made at t gives t + k for k steps ahead.

    ``moves(step, env)`` is how far an environment has come since the oldest observation. Alpha
    is 0, so the newest plan decides.
    """
    settings = {"lookback_obs_steps": 4, "lookback_aug": 0, "alpha": 0, **settings}
    policy = make_policy(**settings, stall_tolerance=0.01).eval()
    parameter = policy.model.prefix_input
    network = CountingNetwork(len(policy.window.action_offsets), 20)
    policy.model = network
    policy.model.prefix_input = parameter
    network.forward = lambda x: CountingNetwork.forward(network, x).expand(len(x["state"]), -1, -1)
    policy.reset([0, 1, 2])
    actions = []
    for step in range(steps):
        network.t = step
        obs = {}
        for key, value in observation(1, 0).items():
            obs[key] = value[:, :1].expand(3, 3, -1).clone()
            for env in range(3):
                obs[key][env, -1] += 256 * moves(step, env)
        action = policy.predict_action(obs, env_ids=[0, 1, 2])["action"][:, 0, 0]
        actions.append(action / 256 - 1)
    return policy, torch.stack(actions).round().int()


def test_a_policy_that_stands_still_goes_on_from_a_later_step_of_its_plan():
    """Environment 0 rests, 1 moves, 2 moves until step 5."""

    def moves(step, env):
        return (0.0, 0.02, 0.02 if step <= 5 else 0.005)[env]

    _, actions = follow_counting(12, moves, stall_skip=7)
    skipped = (actions - torch.arange(12)[:, None]).T.tolist()
    assert skipped[0] == [0] * 4 + [7] * 8  # the lookback must not reach behind the start
    assert skipped[1] == [0] * 12
    assert skipped[2] == [0] * 6 + [7] * 6


def test_what_is_left_of_a_plan_after_a_skip_lasts_until_the_next():
    settings = {"predict_every_n": 4, "return_every_n": 2, "stall_skip": 12}
    policy, actions = follow_counting(16, lambda step, env: 0.02 * (env == 1), **settings)
    # Two steps of the plan a control step, from 12 steps later on where the policy stands still.
    plan = torch.arange(4) * 2 + 1
    assert (actions[:, 1].view(4, 4) - torch.arange(0, 16, 4)[:, None] == plan).all()
    assert (actions[4:, 0].view(3, 4) - torch.arange(4, 16, 4)[:, None] == plan + 12).all()
    assert policy.n_actions_ahead == 1  # row 0 of four, the other three already used


def test_newest_prediction_stays_aligned_to_now():
    policy = make_policy(predict_every_n=4).eval()
    first = policy.predict_action(observation(1, 0))["action_pred"]
    second = policy.predict_action(observation(1, 1))["action_pred"]
    torch.testing.assert_close(second[:, :-1], first[:, 1:])


def test_environments_are_independent_and_reset_alone():
    together = make_policy(predict_every_n=2).eval()
    alone = [copy.deepcopy(together) for _ in range(3)]
    for step in range(6):
        if step == 3:
            together.reset([1])
            alone[1].reset()
        rows = [0, 1, 2] if step != 4 else [2, 0]
        obs = observation(3, step)
        batched = together.predict_action({k: v[rows] for k, v in obs.items()}, env_ids=rows)
        for row, env in enumerate(rows):
            single = alone[env].predict_action({k: v[[env]] for k, v in obs.items()})
            torch.testing.assert_close(
                batched["action"][row], single["action"][0], atol=1e-3, rtol=1e-5
            )


def test_augmentation_fades_with_updates_and_survives_in_the_state():
    policy = make_policy(state_noise=0.5, noise_decay=0.5, dropout=0.0)
    obs = observation(64, 0)
    clean = policy.eval()._network_inputs(obs, policy.normalizer)["state"]

    def noise() -> float:
        return (
            (policy.train()._network_inputs(obs, policy.normalizer)["state"] - clean)
            .abs()
            .max()
            .item()
        )

    assert noise() == pytest.approx(0.5, rel=0.05)
    for _ in range(3):
        policy.after_update()
    assert noise() == pytest.approx(0.5 / 8, rel=0.05)
    restored = make_policy(state_noise=0.5, noise_decay=0.5)
    restored.load_state_dict(policy.state_dict())
    assert restored.n_updates == 3


IMAGE_META = {
    "obs": {
        "front": {"shape": [3, 120, 100], "type": "rgb"},
        "wrist": {"shape": [3, 96, 96], "type": "rgb"},
    },
    "action": {"shape": [2]},
}


def make_image_policy(**settings) -> DOTPolicy:
    torch.manual_seed(0)
    policy = DOTPolicy(IMAGE_META, **{"lora_rank": 2, **TINY, **settings})
    normalizer = LinearNormalizer()
    for key in ("front", "wrist"):
        normalizer[key] = SingleFieldLinearNormalizer.create_identity((3, 1, 1))
    normalizer["action"] = SingleFieldLinearNormalizer.create_identity((2,))
    policy.set_normalizer(normalizer)
    return policy


def images(n: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.randint(0, 256, (n, 3, *entry["shape"]), dtype=torch.uint8, generator=generator)
        for key, entry in IMAGE_META["obs"].items()
    }


def backbone_file(folder: Path, name: str) -> str:
    path = folder / "backbone.safetensors"
    save_backbone(build_backbone("", "", name, None), path, {})
    return str(path)


def test_adapters_do_not_leave_a_backbone_frozen(tmp_path):
    weights = backbone_file(tmp_path, "resnet18")
    with pytest.raises(
        UserError, match=r"policy.lora_rank is 2; use 0 with policy.freeze_backbone"
    ):
        make_image_policy(backbone_weights=weights, freeze_backbone=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "tokens"),
    [("keypoint_cnn", "pooled"), ("resnet18", "pooled"), ("resnet18", "spatial")],
)
def test_of_a_frozen_backbone_the_last_layer_alone_trains(backbone, tokens, tmp_path):
    weights = backbone_file(tmp_path, backbone)
    policy = make_image_policy(
        backbone=backbone,
        backbone_weights=weights,
        image_tokens=tokens,
        lora_rank=0,
        freeze_backbone=True,
    )
    encoder = policy.model.projections["images"]
    steps = len(policy.window.action_offsets)
    batch = {
        "obs": images(2),
        "action": torch.rand(2, steps, 2),
        "action_is_pad": torch.zeros(2, steps, dtype=torch.bool),
    }
    policy.compute_loss(batch)[0].backward()
    trained = {name for name, weight in encoder.named_parameters() if weight.grad is not None}
    assert trained == {"fc.weight", "fc.bias"}


def test_cameras_are_resized_and_cropped_in_training_alone():
    policy = make_image_policy(crop_scale=0.8, noise_decay=1.0)
    evaluated = policy.eval()._network_inputs(images(2), policy.normalizer)["images"]
    assert evaluated.shape == (2, 6, 3, 96, 96)
    sides = {
        tuple(policy.train()._network_inputs(images(2), policy.normalizer)["images"].shape[-2:])
        for _ in range(30)
    }
    assert len(sides) > 3
    assert all(height == width and 77 <= height <= 96 for height, width in sides)


def test_images_are_ordered_by_time_then_camera():
    policy = make_image_policy().eval()
    obs = images(1)
    for camera, key in enumerate(policy.image_keys):
        for time in range(3):
            obs[key][:, time] = 10 * time + camera
    ordered = policy._network_inputs(obs, policy.normalizer)["images"][0, :, 0, 0, 0]
    assert ordered.tolist() == [0, 1, 10, 11, 20, 21]


def films(n_envs: int, n_steps: int) -> list[dict[str, torch.Tensor]]:
    """Return the observations at step t: frames t - 10, t - 1 and t of each camera."""
    generator = torch.Generator().manual_seed(0)
    frames = {
        key: torch.randint(
            0, 256, (n_envs, n_steps, *entry["shape"]), dtype=torch.uint8, generator=generator
        )
        for key, entry in IMAGE_META["obs"].items()
    }
    seen = [[max(0, step + offset) for offset in (-10, -1, 0)] for step in range(n_steps)]
    return [{key: film[:, steps] for key, film in frames.items()} for steps in seen]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{}, {"lora_rank": 0, "image_tokens": "spatial"}, {"predict_every_n": 3}]
)
def test_inference_form_acts_like_the_plain_one_as_images_change(settings):
    """Folded weights, their layout and cached images change only the rounding."""
    plain = make_image_policy(**settings).eval()
    for module in plain.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            module.bias.normal_(std=0.1)
    prepared = copy.deepcopy(plain)
    prepared.prepare_for_inference()
    for step, obs in enumerate(films(n_envs=2, n_steps=13)):
        if step == 5:
            for policy in (plain, prepared):
                policy.reset([1])
        plain.features.clear()
        expected = plain.predict_action(obs)["action"]
        found = prepared.predict_action(obs)["action"]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not any("lora" in name or ".bn" in name for name in prepared.state_dict())


@pytest.mark.slow
def test_images_are_encoded_once_until_the_weights_change():
    policy = make_image_policy().eval()
    encoded = []
    policy.model.projections["images"].fc.register_forward_pre_hook(
        lambda _, inputs: encoded.append(len(inputs[0]))
    )
    for obs in films(n_envs=2, n_steps=12):
        policy.predict_action(obs)
    assert encoded == [4] * 12  # the newest frame of two cameras in two environments
    with torch.no_grad():
        policy.model.projections["images"].fc.bias.add_(1)
    policy.predict_action(obs)
    policy.reset()
    policy.predict_action(obs)
    assert encoded[12:] == [12, 12]


@pytest.mark.slow
def test_a_copy_of_a_policy_remembers_images_of_its_own():
    policy = make_image_policy().eval()
    obs = images(2)
    before = policy.predict_action(obs)["action"]
    other = copy.deepcopy(policy)
    with torch.no_grad():
        other.model.projections["images"].fc.bias.add_(1)
    assert not torch.allclose(other.predict_action(obs)["action"], before)
    policy.follower.reset()
    assert torch.equal(policy.predict_action(obs)["action"], before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"train_horizon": 10, "inference_horizon": 12},
            "policy.train_horizon is 10; use at least",
        ),
        ({"predict_every_n": 21}, "policy.predict_every_n is 21; use a whole number from 1 to 20"),
        ({"return_every_n": 0}, "policy.return_every_n is 0"),
        (
            {"predict_every_n": 8, "return_every_n": 3},
            "policy.predict_every_n is 8; .* to 6, or the plan runs out",
        ),
        ({"stall_skip": 20}, "policy.stall_skip is 20; use a whole number from 0 to 19"),
        (
            {"stall_skip": 19, "return_every_n": 2},
            "policy.stall_skip is 19; use a whole number from 0 to 18",
        ),
        ({"stall_skip": 5.5}, "policy.stall_skip is 5.5; use a whole number"),
        ({"stall_skip": None}, "policy.stall_skip is None; use a whole number"),
        ({"stall_tolerance": "x"}, "policy.stall_tolerance is 'x'; use at least 0"),
        ({"stall_tolerance": -0.1}, "policy.stall_tolerance is -0.1"),
        ({"stall_skip": 5, "n_obs_steps": 1}, "policy.stall_skip is 5; use 0, or low-dim"),
        ({"lookback_aug": 9}, "policy.lookback_aug is 9"),
        ({"alpha": -0.5}, "policy.alpha is -0.5; use 0..1"),
        ({"n_obs_steps": 0}, "policy.n_obs_steps is 0"),
        ({"crop_scale": 1.5}, "policy.crop_scale is 1.5; use more than 0 and at most 1"),
        ({"crop_scale": 0.5}, "policy.crop_scale is 0.5; use more than 0.68"),
        ({"state_noise": -1}, "policy.state_noise is -1"),
        ({"noise_decay": 3}, "policy.noise_decay is 3"),
        ({"n_heads": 3}, "policy.n_heads is 3"),
        ({"dropout": 2}, "policy.dropout is 2"),
        ({"image_tokens": "spatail"}, "policy.image_tokens is 'spatail'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        make_policy(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "resnet17"}, "policy.backbone is 'resnet17'; use one of"),
        (
            {"backbone": "keypoint_cnn", "lora_rank": 0, "backbone_weights": "IMAGENET1K_V1"},
            "policy.backbone_weights is 'IMAGENET1K_V1'; for keypoint_cnn use null, or",
        ),
        (
            {"backbone": "keypoint_cnn", "image_tokens": "spatial", "lora_rank": 0},
            "policy.image_tokens is 'spatial'; use pooled, .*, or policy.backbone=resnet18",
        ),
        (
            {"backbone": "keypoint_cnn", "lora_rank": 4},
            "policy.lora_rank is 4; use 0, since keypoint_cnn",
        ),
        ({"lora_rank": -1}, "policy.lora_rank is -1; use a whole number from 0"),
        ({"backbone_weights": 5}, "policy.backbone_weights is 5; for resnet18 use IMAGENET1K_V1, "),
        ({"freeze_backbone": "no"}, "policy.freeze_backbone is 'no'; use true or false"),
        (
            {"freeze_backbone": True, "lora_rank": 0},
            "policy.freeze_backbone is True; give policy.backbone_weights",
        ),
        (
            {"freeze_backbone": True, "lora_rank": 0, "backbone_weights": "x.safetensors"},
            "x.safetensors does not exist",
        ),
    ],
)
def test_backbones_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        make_image_policy(**settings)


def test_plans_are_averaged_in_full_precision_whatever_the_products_have():
    policy = make_policy().eval()
    with torch.autocast("cpu", torch.bfloat16):
        action = policy.predict_action(observation(2, 0))["action"]
    normalized = policy.normalizer["action"].normalize(action)
    assert (normalized - normalized.bfloat16().float()).abs().max() > 1e-4
