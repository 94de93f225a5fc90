from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from diffusion_policy.checkpoint.checkpoint_file import save_checkpoint
from diffusion_policy.checkpoint.saved_policy import load_policy
from diffusion_policy.checkpoint.trust import check_trusted
from diffusion_policy.util.errors import UserError
from tests.configs import compose_config


@pytest.mark.parametrize(
    "target",
    [
        "os.mkdir",
        "toy_policy.GoalPolicy",  # a policy, but not of this package
        "diffusion_policy.util.atomic_file.os.mkdir",  # reached through the package
        "diffusion_policy.policy.base_policy.torch.hub.load",
        "diffusion_policy.policy.base_policy.LinearNormalizer",  # of the package, but no policy
        "diffusion_policy.policy.no_such_module.Policy",
        None,
    ],
)
def test_a_checkpoint_builds_no_foreign_policy(tmp_path, target):
    policy = {"_target_": target, "path": str(tmp_path / "made")}
    config = OmegaConf.to_yaml(OmegaConf.create({"policy": policy}))
    save_checkpoint(tmp_path / "a.ckpt", config, {"model": {}})
    with pytest.raises(UserError, match=r"policy\._target_ is .*--trust-checkpoint"):
        load_policy(tmp_path / "a.ckpt")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("dim", "os.getpid"),
        ("shape_meta", "diffusion_policy.util.json_logger.JsonLogger"),  # would empty a file
        # Would build whatever environment it is given.
        ("shape_meta", "diffusion_policy.env_runner.env_runner.EnvRunner"),
    ],
)
def test_nor_foreign_parts_of_one(key, target):
    cfg = compose_config("train_dot_pusht")
    OmegaConf.update(cfg, f"policy.{key}", [{"deep": {"_target_": target}}])
    with pytest.raises(UserError, match=rf"policy\.{key}\.0\.deep\._target_ is '{target}'"):
        check_trusted(cfg, "policy")


def test_a_target_behind_an_interpolation_is_seen():
    cfg = OmegaConf.create({"policy": {"_target_": "${name}"}, "name": "os.mkdir"})
    with pytest.raises(UserError, match=r"policy\._target_ is 'os\.mkdir'"):
        check_trusted(cfg, "policy")


def test_the_runner_must_be_one():
    cfg = compose_config("train_dot_pusht")
    cfg.task.env_runner._target_ = "diffusion_policy.policy.dot_policy.DOTPolicy"
    with pytest.raises(UserError, match="no BaseRunner of diffusion_policy"):
        check_trusted(cfg, "task.env_runner")


@pytest.mark.parametrize("section", ["policy", "task.env_runner"])
def test_the_package_trusts_its_own(section):
    check_trusted(compose_config("train_dot_pusht_spatial"), section)


def test_a_section_that_is_missing_is_named():
    with pytest.raises(UserError, match=r"no class at task\.env_runner\._target_"):
        check_trusted(OmegaConf.create({"policy": {}}), "task.env_runner")


def with_transforms(*entries):
    return OmegaConf.create({"task": {"transforms": list(entries)}})


ROTATION = {
    "_target_": "diffusion_policy.transforms.rotation_representation.RotationRepresentation"
}


@pytest.mark.parametrize(
    "target",
    [
        "os.mkdir",
        "toy_transform.Centimetres",  # a transform, but not of this package
        "diffusion_policy.transforms.pipeline.hydra.utils.instantiate",
        "diffusion_policy.transforms.pipeline.Pipeline",  # of the package, but no transform
    ],
)
def test_nor_foreign_transforms(target):
    with pytest.raises(UserError, match=r"task\.transforms\[1\]\._target_ is .*, no Transform of"):
        check_trusted(with_transforms(ROTATION, {"_target_": target}), "task.transforms")


def test_nor_foreign_parts_of_a_transform():
    cfg = with_transforms({**ROTATION, "key": {"_target_": "os.getcwd"}})
    with pytest.raises(UserError, match=r"task\.transforms\[0\]\.key\._target_ is 'os\.getcwd'"):
        check_trusted(cfg, "task.transforms")


MIRROR = {"_target_": "diffusion_policy.env.pusht.mirror.Mirror"}


@pytest.mark.parametrize(
    "cfg", [with_transforms(ROTATION, MIRROR), with_transforms(), {"task": {}}, {}]
)
def test_own_transforms_are_trusted_and_none_are_needed(cfg):
    check_trusted(OmegaConf.create(cfg), "task.transforms")
