from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from diffusion_policy.checkpoint.checkpoint_file import save_checkpoint
from diffusion_policy.checkpoint.saved_policy import SavedPolicy
from diffusion_policy.util.errors import UserError, user_message

PRETRAINED = Path(__file__).parents[2] / "data" / "pretrained" / "dot_pusht"


@pytest.fixture(scope="module")
def saved() -> SavedPolicy:
    return SavedPolicy.read(PRETRAINED)


@pytest.mark.slow
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


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_number_that_is_shown_often_is_no_large_weight(saved, device):
    cfg = copy.deepcopy(saved.cfg)
    cfg.policy.dim = 16_000  # 8 GB
    often = torch.zeros(1, device=device).expand(10**13)
    with pytest.raises(Exception) as refusal:  # noqa: PT011 -- as above
        SavedPolicy(PRETRAINED, cfg, {**saved.weights, "x": often}, None).build()
    assert "policy many times as large" in (user_message(refusal.value) or "")


def test_a_setting_that_makes_no_policy_is_told_in_one_line(saved):
    cfg = copy.deepcopy(saved.cfg)
    cfg.policy.dim = 0
    with pytest.raises(UserError, match=r"^the policy of .*dot_pusht cannot be built \("):
        SavedPolicy(PRETRAINED, cfg, saved.weights, None).build()


def test_weights_that_are_no_tensors_are_refused(tmp_path):
    save_checkpoint(tmp_path / "a.ckpt", "", {"model": {"bias": 5}})
    with pytest.raises(UserError, match="holds 5 as the weights bias"):
        SavedPolicy.read(tmp_path / "a.ckpt")


def test_a_count_of_steps_that_is_none_is_not_told(tmp_path):
    save_checkpoint(tmp_path / "a.ckpt", "", {"model": {}, "global_step": "many"})
    assert SavedPolicy.read(tmp_path / "a.ckpt").n_steps is None


def test_its_own_config_is_within_the_limit(saved):
    saved.build()
