"""Behavioural cloning: losses by hand, memories of environments, and settings that do not fit."""

import pytest
import torch
from hydra.errors import InstantiationException

from diffusion_policy.model.common.action_coordinates import huber_error
from diffusion_policy.policy.bc_policy import VisuomotorBCPolicy
from diffusion_policy.util.errors import UserError
from tests.policy.test_contract import make_batch, make_obs, make_policy

GRU = ("train_bc_push", "policy=bc_gru", "policy.sequence_length=4")
STATE = {"obs": {"x": {"shape": [2]}}, "action": {"shape": [3]}}


def test_loss_is_the_mean_over_the_steps_of_the_episode():
    policy = make_policy(*GRU, "policy.coordinates=spherical").eval()
    batch = make_batch(policy)
    assert batch["action"].shape == (3, 4, 3)
    loss, _ = policy.compute_loss(batch)
    target = policy.normalizer["action"].normalize(batch["action"])
    raw, _ = policy.model(*policy.inputs(batch["obs"], policy.normalizer, 4))
    error = huber_error(policy.coordinates, raw, target, magnitude_weights=True)
    error[batch["action_is_pad"]] = 0
    torch.testing.assert_close(loss, error.sum() / error.numel())
    batch["action"][0, -2:] += 100  # outside the episode
    torch.testing.assert_close(policy.compute_loss(batch)[0], loss)


def test_every_environment_has_its_own_memory():
    policy = make_policy(*GRU).eval()
    observations = [make_obs(policy, 3, seed=seed) for seed in range(4)]
    together = []
    for step, obs in enumerate(observations):
        if step == 2:
            policy.reset([1])
        together.append(policy.predict_action(obs, env_ids=[0, 1, 2])["action"])
    for env, first in ((0, 0), (1, 2), (2, 0)):
        policy.reset()
        for step in range(first, 4):
            one = {key: value[env : env + 1] for key, value in observations[step].items()}
            alone = policy.predict_action(one, env_ids=[7])["action"]
            torch.testing.assert_close(alone, together[step][env : env + 1], atol=1e-2, rtol=1e-4)


def test_acting_equals_training_on_a_sequence():
    policy = make_policy(*GRU).eval()
    obs = make_obs(policy, 2, steps=4)
    raw, _ = policy.model(*policy.inputs(obs, policy.normalizer, 4))
    for step in range(4):
        now = {key: value[:, step : step + 1] for key, value in obs.items()}
        expected = policy.normalizer["action"].unnormalize(raw[:, step : step + 1])
        found = policy.predict_action(now)["action"]
        torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_gru": True}, "sequence_length is 1; use at least 2, .* a GRU learns from steps in"),
        ({"sequence_length": 4}, "sequence_length is 4; use 1 without policy.use_gru=true"),
        ({"sequence_length": 0}, "sequence_length is 0; use a whole number from 1"),
        ({"coordinates": "polar"}, "coordinates is 'polar'; use one of cartesian, spherical"),
        ({"use_state": False}, "use_state is False and shape_meta.obs has no rgb key, only x; use"),
        ({"image_size": [84]}, r"image_size is \[84\]; use \[height, width\]"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        VisuomotorBCPolicy(STATE, **settings)


def test_spherical_coordinates_need_three_numbers():
    with pytest.raises(
        InstantiationException, match="coordinates is 'spherical'; use cartesian, since an actio"
    ):
        make_policy("train_bc_pusht", "policy.coordinates=spherical")
