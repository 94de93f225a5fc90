"""Both forms of ACT: losses, the following of chunks, and settings that do not fit."""

from types import SimpleNamespace

import pytest
import torch
from hydra.errors import InstantiationException

from diffusion_policy.util.errors import UserError
from tests.policy.test_contract import make_batch, make_obs, make_policy


def test_padded_actions_count_as_zero_and_change_nothing():
    for name in ("train_act_pusht", "train_act_seed_pusht"):
        policy = make_policy(name, "policy.dropout=0").eval()
        batch = make_batch(policy)
        loss, _ = policy.compute_loss(batch)
        batch["action"][batch["action_is_pad"]] += 100
        torch.testing.assert_close(policy.compute_loss(batch)[0], loss)


def test_loss_of_the_published_form():
    policy = make_policy("train_act_pusht", "policy.dropout=0", "policy.kl_weight=3")
    batch = make_batch(policy)
    torch.manual_seed(1)
    loss, values = policy.train().compute_loss(batch)
    torch.testing.assert_close(loss, values["l1"] + 3 * values["kl"])
    target = policy.normalizer["action"].normalize(batch["action"])
    torch.manual_seed(1)
    inputs = policy._network_inputs(batch["obs"], policy.normalizer)
    predicted, _ = policy.model(inputs, target, batch["action_is_pad"])
    error = (predicted - target).abs() * ~batch["action_is_pad"][..., None]
    torch.testing.assert_close(values["l1"], error.mean())
    assert policy.eval().compute_loss(batch)[1].keys() == {"l1"}


def test_the_newest_chunk_is_executed_for_so_many_steps():
    policy = make_policy(
        "train_act_pusht", "policy.temporal_ensemble_coeff=null", "policy.n_action_steps=3"
    ).eval()
    first, second = (policy.predict_action(make_obs(policy, 2, seed=seed)) for seed in (0, 1))
    policy.reset()
    again = policy.predict_action(make_obs(policy, 2, seed=1))
    assert first["action"].shape == (2, 3, 2)
    assert torch.equal(second["action"], again["action"])


def test_a_backbone_may_have_a_learning_rate_of_its_own():
    policy = make_policy("train_act_pusht_image", "policy.backbone_lr=0.001")
    rest, backbone = policy.parameter_groups()
    trained = [p for p in policy.parameters() if p.requires_grad]
    assert backbone["lr"] == 0.001
    assert {id(p) for p in backbone["params"]} == {
        id(p) for p in policy.model.backbone.parameters()
    }
    assert len(rest["params"]) + len(backbone["params"]) == len(trained)


def test_a_chunk_longer_than_every_episode_is_refused():
    policy = make_policy("train_act_pusht")
    episodes = SimpleNamespace(episode_samples=lambda: [range(3), range(5)])
    with pytest.raises(UserError, match=r"chunk_size is 6, but the longest .* use at most 5"):
        policy.fit(episodes)
    policy.fit(SimpleNamespace(episode_samples=lambda: []))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("train_act_pusht", ["n_action_steps=7"], r"n_action_steps is 7; .* \(6\)"),
        ("train_act_pusht", ["chunk_size=0"], "chunk_size is 0; use a whole number from 1"),
        ("train_act_pusht", ["kl_weight=-1"], "kl_weight is -1; use at least 0"),
        ("train_act_pusht", ["temporal_ensemble_coeff=true"], "coeff is True; use a number"),
        ("train_act_pusht", ["backbone_lr=0"], "backbone_lr is 0; use more than 0"),
        ("train_act_seed_pusht", ["coordinates=spherical"], "has 2 numbers and not 3"),
        (
            "train_act_seed_pusht_image",
            ["backbone=vit_b_16", "image_size=[90,90]"],
            "multiples of 16",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(name, settings, message):
    with pytest.raises(InstantiationException, match=message):  # around a UserError
        make_policy(name, *[f"policy.{setting}" for setting in settings])


def test_a_task_without_a_world_is_refused():
    overrides = "task.shape_meta.obs.keypoint.modality=STATE"
    with pytest.raises(InstantiationException, match="neither an image nor modality ENV"):
        make_policy("train_act_pusht", overrides)
