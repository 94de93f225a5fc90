from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from diffusion_policy.common.errors import UserError
from diffusion_policy.model.common.normalizer import (
    LinearNormalizer,
    SingleFieldLinearNormalizer,
)
from diffusion_policy.policy.dot_policy import DOTPolicy, loss_weights, plan_weights
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
    record = golden("dot_weights")
    np.testing.assert_allclose(loss_weights(3, 20, 0.9), record["loss_weights"], atol=1e-5)
    np.testing.assert_allclose(plan_weights(20, 0.75), record["action_weights"], atol=1e-5)


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


def naive_rollout(policy: DOTPolicy, observations: list[dict]) -> list[torch.Tensor]:
    """Ensembling by its definition, one environment, absolute time."""
    horizon, n, advance = (
        policy.inference_horizon,
        policy.predict_every_n,
        policy.return_every_n,
    )
    weights = plan_weights(horizon, 0.75)
    opinions: list[list[torch.Tensor]] = []  # chunk of each step, oldest first
    actions = []
    for step, obs in enumerate(observations):
        if step % n == 0:
            with torch.no_grad():
                chunk = policy.model(policy._network_inputs(obs))[0, -horizon:]
            opinion = list(chunk)
        else:
            last = opinions[-1]
            opinion = last[advance:] + [last[-1]] * advance
        if not opinions:
            # All earlier slots hold the first prediction, aligned to now.
            history = [(opinion, 0)] * horizon
        opinions.append(opinion)
        history = [(opinion, 0), *((c, age + advance) for c, age in history[: horizon - 1])]
        if step == 0:
            history = [(opinion, 0)] * horizon
        said = [chunk[min(age, horizon - 1)] for chunk, age in history]
        actions.append(sum(w * a for w, a in zip(weights, said, strict=True)))
    return [(action + 1) * 256 for action in actions]


@pytest.mark.parametrize(
    ("predict_every_n", "return_every_n"), [(1, 1), (3, 1), (1, 2), (2, 3), (6, 1)]
)
def test_actions_equal_the_definition(predict_every_n, return_every_n):
    policy = make_policy(
        train_horizon=8,
        inference_horizon=6,
        predict_every_n=predict_every_n,
        return_every_n=return_every_n,
    ).eval()
    observations = [observation(1, seed) for seed in range(15)]
    expected = naive_rollout(policy, observations)
    for obs, action in zip(observations, expected, strict=True):
        result = policy.predict_action(obs)
        assert result["action"].shape == (1, 1, 2)
        assert result["action_pred"].shape == (1, 8, 2)
        torch.testing.assert_close(result["action"][0, 0], action, atol=1e-3, rtol=1e-5)


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
    clean = policy.eval()._network_inputs(obs)["state"]

    def noise() -> float:
        return (policy.train()._network_inputs(obs)["state"] - clean).abs().max().item()

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
    policy = DOTPolicy(IMAGE_META, backbone_weights=None, lora_rank=2, **{**TINY, **settings})
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


def test_cameras_are_resized_and_cropped_in_training_alone():
    policy = make_image_policy(crop_scale=0.8, noise_decay=1.0)
    evaluated = policy.eval()._network_inputs(images(2))["images"]
    assert evaluated.shape == (2, 6, 3, 96, 96)
    sides = {
        tuple(policy.train()._network_inputs(images(2))["images"].shape[-2:]) for _ in range(30)
    }
    assert len(sides) > 3
    assert all(height == width and 77 <= height <= 96 for height, width in sides)


def test_merged_adapters_act_the_same():
    policy = make_image_policy().eval()
    before = policy.predict_action(images(1))["action"]
    policy.reset()
    policy.prepare_for_inference()
    torch.testing.assert_close(
        policy.predict_action(images(1))["action"], before, atol=1e-3, rtol=1e-3
    )
    assert not any("lora" in name for name, _ in policy.named_parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"train_horizon": 10, "inference_horizon": 12},
            "policy.train_horizon is 10; use at least",
        ),
        ({"predict_every_n": 21}, "policy.predict_every_n is 21; use 1..inference_horizon"),
        ({"return_every_n": 0}, "policy.return_every_n is 0"),
        ({"predict_every_n": 8, "return_every_n": 3}, "use at most inference_horizon // return"),
        ({"lookback_aug": 9}, "policy.lookback_aug is 9"),
        ({"n_obs_steps": 0}, "policy.n_obs_steps is 0"),
    ],
)
def test_horizons_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        make_policy(**settings)
