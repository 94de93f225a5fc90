from __future__ import annotations

import pytest

from diffusion_policy.util.errors import UserError
from diffusion_policy.workspace.config_check import check_known_keys
from tests.configs import compose_config
from tests.policy.test_contract import CONFIGS


@pytest.mark.parametrize("name", CONFIGS)
def test_the_named_configs_are_known(name):
    check_known_keys(compose_config(name, "+logging.wandb.tags=[a]", "+dataloader.pin_memory=true"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+foo=1", "config key foo is unknown; known keys are name, workspace, task"),
        ("+logging.foo=1", "config key logging.foo is unknown; known keys are tensorboard, wandb"),
        ("+checkpoint.foo=1", "config key checkpoint.foo is unknown; known keys are topk"),
        ("+checkpoint.topk.foo=1", "config key checkpoint.topk.foo is unknown; known keys are mon"),
        ("+task.foo=1", "config key task.foo is unknown; known keys are name, fps, embodiment"),
        ("+dataloader.shuffle=false", "config key dataloader.shuffle is unknown"),
        ("+workspace.foo=1", "config key workspace.foo is unknown; known keys are _target_"),
        ("dataloader.batch_size=0", "dataloader.batch_size is 0; use a whole number, at least 1"),
        ("val_dataloader.batch_size=many", "val_dataloader.batch_size is 'many'; use a whole"),
        ("dataloader.batch_size=8.5", "dataloader.batch_size is 8.5; use a whole number"),
        ("dataloader.num_workers=-1", "dataloader.num_workers is -1; use a whole number, at least"),
        ("+dataloader.pin_memory=1", "dataloader.pin_memory is 1; use true or false"),
        ("+dataloader.persistent_workers=true", "persistent_workers is True without workers"),
        (
            "+val_dataloader.prefetch_factor=2",
            "val_dataloader.prefetch_factor is 2 without workers",
        ),
        ("~dataloader.batch_size", "dataloader.batch_size is missing; use at least 1"),
        ("+policy.dimm=3", "config key policy.dimm is unknown; did you mean policy.dim?"),
        ("+optimizer.lrr=1", "config key optimizer.lrr is unknown; did you mean optimizer.lr?"),
        ("+ema.powr=1", "config key ema.powr is unknown; did you mean ema.power?"),
        ("+task.dataset.val_ration=0", "is unknown; did you mean task.dataset.val_ratio?"),
        ("+task.dataset.store.zip=1", "config key task.dataset.store.zip is unknown; known keys"),
        ("+task.env_runner.n_tests=3", "is unknown; did you mean task.env_runner.n_test?"),
        ("checkpoint=null", "config section checkpoint is None"),
        ("~logging", "config section logging is None"),
    ],
)
def test_a_mistake_is_named(override, message):
    with pytest.raises(UserError) as caught:
        check_known_keys(compose_config("train_dot_pusht", override))
    assert message in str(caught.value)
