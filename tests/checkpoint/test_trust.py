from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

import diffusion_policy
from diffusion_policy.checkpoint.checkpoint_file import save_checkpoint
from diffusion_policy.checkpoint.saved_policy import load_policy
from diffusion_policy.checkpoint.trust import (
    check_group_trusted,
    check_run_trusted,
    check_trusted,
    needs_trust,
    section_to_build,
)
from diffusion_policy.env_runner.env_runner import EnvRunner
from diffusion_policy.model.diffusion.process import Process
from diffusion_policy.model.vision.obs_encoder import ObsEncoder
from diffusion_policy.policy.base_policy import BasePolicy
from diffusion_policy.transforms.transform import Transform
from diffusion_policy.util.errors import UserError
from diffusion_policy.workspace.base_runner import BaseRunner
from diffusion_policy.workspace.base_workspace import BaseWorkspace
from tests.configs import compose_config

PACKAGE = Path(diffusion_policy.__file__).parent
MODEL = "diffusion_policy.model"


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    """A config to copy and change."""
    return compose_config("train_dot_pusht")


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


@pytest.mark.parametrize(
    ("section", "change", "told"),
    [
        ("policy", {"_args_": ["x"]}, r"policy\._args_ changes how Hydra builds"),
        ("policy", {"_partial_": True}, r"policy\._partial_ changes how Hydra builds"),
        (
            "policy",
            {"normalization": {"_recursive_": False}},
            r"normalization\._recursive_ changes",
        ),
        # Of the package, but no part of a policy that a config names.
        (
            "policy",
            {"a": {"_target_": f"{MODEL}.vision.keypoint_cnn.KeypointCNN"}},
            "no ObsEncoder",
        ),
        ("task.env_runner", {"output_dir": "/elsewhere"}, "'/elsewhere', a place that the file"),
        ("task.env_runner", {"env": {"id": "diffusion_policy/x:Env-v0"}}, "no environment of"),
        ("task.env_runner", {"env": {"id": ["diffusion_policy/PushT-v0"]}}, "no environment of"),
        ("task.env_runner", {"env": {"factory": "os:mkdir"}}, "could run any code"),
        ("task.env_runner", {"fps": {"_target_": "os.getpid"}}, "no part of diffusion_policy"),
    ],
)
def test_how_a_section_is_built_is_no_choice_of_the_file(composed, section, change, told):
    cfg = copy.deepcopy(composed)
    OmegaConf.update(cfg, section, change, merge=True, force_add=True)
    with pytest.raises(UserError, match=told):
        check_trusted(cfg, section)


def test_an_escaped_interpolation_does_not_come_to_life():
    """What is checked is what is built, whatever changes in between."""
    cfg = compose_config("train_dot_pusht")
    cfg.policy.normalization = {"_target_": r"\${oc.select:policy.dim}"}
    OmegaConf.resolve(cfg)
    cfg.policy.normalization = {"_target_": r"\${name}"}
    with pytest.raises(
        UserError, match=r"policy\.normalization\._target_ is '\$\{name\}', an inter"
    ):
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


@pytest.mark.parametrize(
    "name",
    [
        "train_dot_pusht_spatial",
        "train_diffusion_unet_pusht_image",
        "train_diffusion_transformer_hybrid_pusht_image",
    ],
)
def test_the_package_trusts_its_own(name):
    cfg = compose_config(name)
    check_run_trusted(cfg)
    content = section_to_build(cfg, "policy", trust=False)
    assert content == OmegaConf.to_container(cfg.policy, resolve=True)


@pytest.mark.parametrize(
    ("section", "target"),
    [
        ("task.dataset", "os.mkdir"),
        ("task.dataset.store", "diffusion_policy.dataset.array_cache.shutil.rmtree"),
        ("optimizer", "torch.hub.load"),
        ("ema", "torch.utils.collect_env.run"),
    ],
)
def test_nor_does_a_run_that_goes_on_from_a_checkpoint(tmp_path, composed, section, target):
    cfg = copy.deepcopy(composed)
    OmegaConf.update(cfg, f"{section}._target_", target)
    save_checkpoint(tmp_path / "a.ckpt", OmegaConf.to_yaml(cfg, resolve=True), {})
    with pytest.raises(UserError, match=rf"{section}\._target_ is '{target}'"):
        BaseWorkspace.create_from_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("group", [{"episodes": "/etc"}, {"starts": "/etc/passwd"}])
def test_a_group_of_starts_reads_no_path_of_the_file(group):
    with pytest.raises(UserError, match=r"groups\.a\.\w+ is the path '/etc.*--starts /etc"):
        check_group_trusted({"a": group}, "a")
    check_group_trusted({"a": {"starts": []}, "b": group}, "a")
    check_group_trusted(None, "/etc/passwd")  # the user's own


def classes_of_files() -> list[type]:
    """Every class that an untrusted file can name."""
    for folder in ("policy", "model", "env_runner", "transforms", "env/pusht"):
        for path in sorted((PACKAGE / folder).rglob("[!_]*.py")):
            importlib.import_module(
                ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
            )

    def below(cls: type) -> set[type]:
        return {cls}.union(*map(below, cls.__subclasses__()))

    found = set().union(*map(below, (BasePolicy, ObsEncoder, Process, BaseRunner, Transform)))
    return [cls for cls in found if cls.__module__.startswith("diffusion_policy.")]


def test_no_class_takes_a_path_or_command_from_a_file():
    """Arguments with such a name are reset, or refused, or given by the user."""
    words = ("path", "dir", "file", "url", "weights", "command", "factory", "cache", "module")
    classes = classes_of_files()
    assert len(classes) > 15
    for cls in classes:
        reset = {
            *getattr(cls, "weight_settings", {}),
            *(["output_dir"] if cls is EnvRunner else []),
        }
        for name, parameter in arguments(cls):
            harmless = name in reset or parameter.annotation == "bool"
            assert harmless or not any(word in name for word in words), (cls, name)


def arguments(cls: type) -> Iterator[tuple[str, inspect.Parameter]]:
    """What the constructor takes, also by passing it on."""
    for each in cls.__mro__:
        yield from inspect.signature(each.__init__).parameters.items()
        if further := vars(each).get("further_settings_of"):
            yield from arguments(further)


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


@pytest.mark.parametrize("content", [5, "os.mkdir", ROTATION])
def test_transforms_are_a_list(content):
    cfg = OmegaConf.create({"task": {"transforms": content}})
    with pytest.raises(UserError, match=r"task\.transforms is .*; it must be a list"):
        check_trusted(cfg, "task.transforms")


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


@pytest.mark.parametrize(
    ("key", "value", "needs"),
    [
        ("name", "same", False),
        ("policy._target_", "my_package.linear_policy.LinearPolicy", True),
        ("task.env_runner.env.id", "my_package/MyTask-v0", True),
        ("task.env_runner", None, False),
        ("task.dataset._target_", "my_package.data.Dataset", False),  # to train on alone
    ],
)
def test_who_evaluates_a_policy_is_told_whether_trust_is_needed(composed, key, value, needs):
    cfg = copy.deepcopy(composed)
    OmegaConf.resolve(cfg)
    OmegaConf.update(cfg, key, value)
    assert needs_trust(cfg) is needs
