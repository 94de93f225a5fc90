from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf

from diffusion_policy.util.errors import UserError
from diffusion_policy.workspace.lr_schedule import build_schedule
from diffusion_policy.workspace.training_config import LR_SCHEDULERS, TrainingConfig


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_grad_norm", 0, "is 0.0; use more than 0, or null for none"),
        ("max_grad_norm", float("nan"), "is nan; use more than 0, or null for none"),
        ("lr_warmup_steps", -1, "is -1; use at least 0"),
        ("checkpoint_minutes", -0.5, "is -0.5; use at least 0"),
        ("tqdm_interval_sec", -1, "is -1.0; use at least 0"),
        ("seed", -1, "is -1; use at least 0"),
        ("num_threads", 0, "is 0; use at least 1"),
        ("max_train_steps", 0, "is 0; use at least 1"),
        ("max_val_steps", 0, "is 0; use at least 1"),
        ("val_every", 0, "is 0; use at least 1"),
        ("plateau_factor", 1, "is 1.0; use more than 0, less than 1"),
        ("lr_scheduler", "cosin", "is 'cosin'; use one of constant, constant_with_warmup, linear"),
    ],
)
def test_a_value_out_of_range_is_named(name, value, message):
    with pytest.raises(UserError) as caught:
        TrainingConfig.parse(OmegaConf.create({name: value}))
    assert str(caught.value).startswith(f"training.{name} {message}")


def test_what_may_be_zero_or_null():
    section = {"lr_warmup_steps": 0, "checkpoint_minutes": 0, "max_grad_norm": None, "seed": 0}
    config = TrainingConfig.parse(OmegaConf.create({**section, "max_train_steps": None}))
    assert config.checkpoint_minutes == 0
    assert config.max_grad_norm is None


@pytest.mark.parametrize("name", LR_SCHEDULERS)
def test_every_schedule_listed_can_be_used(name):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    training = TrainingConfig(lr_scheduler=name, lr_warmup_steps=2)
    schedule = build_schedule(optimizer, training, n_steps=10)
    for _ in range(10):
        optimizer.step()
        schedule.step()
    assert 0 <= schedule.get_last_lr()[0] <= 1
