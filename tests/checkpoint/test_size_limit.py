from __future__ import annotations

import copy
from pathlib import Path

import pytest

from diffusion_policy.checkpoint.saved_policy import SavedPolicy
from diffusion_policy.util.errors import user_message

PRETRAINED = Path(__file__).parents[2] / "data" / "pretrained" / "dot_pusht"


@pytest.fixture(scope="module")
def saved() -> SavedPolicy:
    return SavedPolicy.read(PRETRAINED)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("dim", 100_000, "2120967 weights"),
        ("n_layers", 100_000, "2120967 weights"),
        ("dim_feedforward", 999_999, "2120967 weights"),
        ("dim_feedforward", 10**12, "policy.dim_feedforward is 1000000000000"),
        ("train_horizon", 10**9, "policy.train_horizon is 1000000000"),
    ],
)
def test_a_policy_far_larger_than_its_weights_is_refused(saved, key, value, told):
    cfg = copy.deepcopy(saved.cfg)
    cfg.policy[key] = value
    with pytest.raises(Exception) as refusal:  # noqa: PT011 -- Hydra's, with ours as its cause
        SavedPolicy(PRETRAINED, cfg, saved.weights, None).build()
    message = user_message(refusal.value)
    assert message is not None
    assert told in message


def test_its_own_config_is_within_the_limit(saved):
    saved.build()
