"""What every policy promises. A new policy joins by its named config, or by an entry of TOYS."""

from __future__ import annotations

import copy
import inspect
import shutil
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from diffusion_policy.model.common.normalizer import (
    LinearNormalizer,
    SingleFieldLinearNormalizer,
)
from diffusion_policy.policy.base_policy import BasePolicy, Batch
from diffusion_policy.util.config import declared
from diffusion_policy.util.errors import UserError
from tests.configs import compose_config, tiny_policy
from tests.toys.toy_language_policy import SHAPE_META as LANGUAGE_META

CONFIGS = sorted(
    path.stem
    for path in (Path(__file__).parents[2] / "diffusion_policy" / "config").glob("train_*.yaml")
)


# Further forms of the same policies.
VARIANTS = {
    "unet-local": ("train_diffusion_unet_pusht", "policy.conditioning=local"),
    "unet-inpaint": ("train_diffusion_unet_pusht", "policy.conditioning=inpaint"),
    "unet-inpaint-past": (
        "train_diffusion_unet_pusht",
        "policy.conditioning=inpaint",
        "policy.past_action_visible=true",
        "policy.n_obs_steps=4",
    ),
    "unet-action-steps": ("train_diffusion_unet_pusht", "policy.pred_action_steps_only=true"),
    "unet-flow": ("train_diffusion_unet_pusht", "policy/noise_scheduler=flow"),
    "unet-image-local": ("train_diffusion_unet_pusht_image", "policy.conditioning=local"),
    "transformer-inpaint": ("train_diffusion_transformer_pusht", "policy.conditioning=inpaint"),
    "transformer-bert": (
        "train_diffusion_transformer_pusht",
        "policy.conditioning=inpaint",
        "policy.time_as_cond=false",
        "policy.causal_attn=false",
    ),
    "transformer-encoder": ("train_diffusion_transformer_pusht", "policy.n_cond_layers=1"),
    "transformer-ddim": ("train_diffusion_transformer_pusht", "policy/noise_scheduler=ddim"),
    "act-seed-spherical": ("train_act_seed_push", "policy.coordinates=spherical_full"),
    "bc-gru": ("train_bc_push", "policy=bc_gru"),
    "bc-spherical": ("train_bc_push", "policy.coordinates=spherical"),
    "bc-images-alone": ("train_bc_push", "policy.use_state=false", "policy.backbone=keypoint_cnn"),
    "act-newest": (
        "train_act_pusht",
        "policy.temporal_ensemble_coeff=null",
        "policy.n_action_steps=4",
    ),
    "act-no-vae": ("train_act_pusht", "policy.use_vae=false", "policy.pre_norm=true"),
    "act-faster": ("train_act_pusht", "policy.return_every_n=2", "policy.predict_every_n=2"),
    "transformer-dpm": ("train_diffusion_transformer_pusht", "policy/noise_scheduler=dpm_solver"),
}


# Policies without a named config: the section that builds each.
TOYS = {
    "toy-language": {
        "_target_": "tests.toys.toy_language_policy.LanguagePolicy",
        "shape_meta": LANGUAGE_META,
    },
    "toy-language-faster": {
        "_target_": "tests.toys.toy_language_policy.LanguagePolicy",
        "shape_meta": LANGUAGE_META,
        "predict_every_n": 2,
        "return_every_n": 2,
    },
}
TEXTS = ("push the T to the goal", "wait", "go back to the start")


def policy_section(name: str, *overrides: str) -> DictConfig:
    """The section ``policy`` of a named config, shrunk, or that of a toy."""
    if name in TOYS:
        return OmegaConf.create(TOYS[name])
    if "hybrid" in name:
        pytest.importorskip("robomimic")
    cfg = compose_config(name, *tiny_policy(name), *overrides)
    OmegaConf.resolve(cfg)
    return cfg.policy


def make_policy(name: str, *overrides: str) -> BasePolicy:
    torch.manual_seed(0)
    policy = hydra.utils.instantiate(policy_section(name, *overrides))
    normalizer = LinearNormalizer()
    for key, field in policy.shape_meta.fields.items():
        if field.type == "text":
            continue
        shape = (3, 1, 1) if field.type == "rgb" else field.shape
        scale = torch.full(shape, 1 / 256)
        statistics = {
            "min": 0 * scale,
            "max": 512 + 0 * scale,
            "mean": 256 + 0 * scale,
            "std": 100 + 0 * scale,
        }
        normalizer[key] = SingleFieldLinearNormalizer.create_manual(
            scale, -torch.ones(shape), statistics
        )
    policy.set_normalizer(normalizer)
    return policy


def make_obs(policy: BasePolicy, n: int, seed: int = 0, steps: int | None = None) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    obs = {}
    for key, field in policy.shape_meta.obs.items():
        shape = (n, steps or len(policy.obs_offsets), *field.shape)
        if field.type == "text":
            obs[key] = [TEXTS[(row + seed) % len(TEXTS)] for row in range(n)]
        elif field.type == "rgb":
            obs[key] = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        else:
            obs[key] = torch.rand(shape, generator=generator) * 512
    return obs


def make_batch(policy: BasePolicy, n: int = 3) -> Batch:
    steps = len(policy.window.action_offsets)
    pad = torch.zeros(n, steps, dtype=torch.bool)
    pad[0, -2:] = True
    return {
        "obs": make_obs(policy, n, steps=len(policy.window.sample_obs_offsets)),
        "action": torch.rand(n, steps, *policy.shape_meta.action.shape) * 512,
        "action_is_pad": pad,
    }


@pytest.fixture(params=[*CONFIGS, *VARIANTS, *TOYS])
def policy(request) -> BasePolicy:
    return make_policy(*VARIANTS.get(request.param, (request.param,)))


def assert_same(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for key, value in left.items():
        if isinstance(value, dict):
            assert_same(value, right[key])
        elif isinstance(value, list):
            assert value == right[key], key
        else:
            assert torch.equal(value, right[key]), key


@pytest.mark.slow
def test_loss_reaches_every_trainable_parameter_and_leaves_the_batch(policy):
    batch = make_batch(policy)
    before = copy.deepcopy(batch)
    loss, values = policy.train().compute_loss(batch)
    assert loss.ndim == 0
    assert all(torch.as_tensor(value).ndim == 0 for value in values.values())
    assert not any(torch.as_tensor(value).requires_grad for value in values.values())
    loss.backward()
    for name, parameter in policy.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert_same(before, batch)


@pytest.mark.slow
def test_prediction_has_the_promised_shapes_and_leaves_the_observation(policy):
    obs = make_obs(policy.eval(), 2)
    before = copy.deepcopy(obs)
    result = policy.predict_action(obs)
    action_shape = policy.shape_meta.action.shape
    assert result["action"].shape == (2, policy.n_action_steps, *action_shape)
    assert result["action_pred"].shape[0] == 2
    assert result["action_pred"].shape[1] == len(policy.action_pred_offsets)
    assert set(policy.action_pred_offsets) <= set(policy.window.action_offsets)
    assert not result["action"].requires_grad
    assert_same(before, obs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["train_dot_pusht_image_human", "train_diffusion_unet_pusht_image"]
)
def test_observations_are_checked(name):
    policy = make_policy(name).eval()
    obs = make_obs(policy, 2)
    policy.reset()
    expected = policy.predict_action(obs)["action"]
    policy.reset()
    arrays = {key: value.numpy() for key, value in obs.items()}
    assert torch.equal(policy.predict_action(arrays)["action"], expected)
    image, position = obs["image"], obs["agent_pos"]
    for change, message in (
        ({"image": image / 255}, "'image' is float32; give images as uint8, 0 to 255"),
        ({"image": image.movedim(2, -1)}, r"the task's is .* 3, 96, 96\]; move the channels first"),
        ({"image": image[..., :48]}, r"'image' has shape .* 48\]; the task's is .* 96\]$"),
        ({"agent_pos": position[0]}, "'agent_pos' has shape"),
        ({"agent_pos": 1.0}, r"'agent_pos' has shape \[\]"),
        ({"agent_pos": "here"}, "'agent_pos' makes no tensor .*; give numbers"),
        ({"agent_pos": position * torch.nan}, "'agent_pos' holds NaN or infinity; give finite"),
        ({"agent_pos": None}, "the observation has no 'agent_pos', but image; the policy needs"),
    ):
        wrong = {key: value for key, value in {**obs, **change}.items() if value is not None}
        with pytest.raises(UserError, match=message):
            policy.predict_action(wrong)


def test_action_is_the_prediction_from_now_on(policy):
    policy.eval().predict_action(make_obs(policy, 2, seed=1))
    result = policy.predict_action(make_obs(policy, 2, seed=2))
    now = policy.window.action_offsets.index(0)
    assert torch.equal(
        result["action"], result["action_pred"][:, now : now + policy.n_action_steps]
    )
    assert policy.n_actions_ahead <= result["action_pred"].shape[1] - now


@pytest.mark.slow
def test_state_dict_holds_everything_that_prediction_needs(policy):
    other = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    other.load_state_dict(policy.state_dict())
    obs = make_obs(policy, 2)
    assert_same(policy.eval().predict_action(obs), other.eval().predict_action(obs))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CONFIGS, *TOYS])
@pytest.mark.parametrize("attribute", ["inference_settings", "weight_settings", "debug_settings"])
def test_declared_settings_are_arguments_of_the_constructor(name, attribute):
    cfg = OmegaConf.create({"policy": policy_section(name)})
    found = list(declared(cfg, "policy", attribute))
    if attribute == "inference_settings":
        assert found[0][0] == "policy"
    for section, names in found:
        given = OmegaConf.select(cfg, section)
        cls = hydra.utils.get_object(given._target_)
        arguments = {a for base in cls.__mro__ for a in inspect.signature(base).parameters}
        assert set(names) <= {*arguments, *given}, section


@pytest.mark.slow
def test_training_is_deterministic(policy):
    batch = make_batch(policy)
    losses = []
    for _ in range(2):
        torch.manual_seed(5)
        losses.append(copy.deepcopy(policy).train().compute_loss(batch)[0])
    assert torch.equal(*losses)


@pytest.mark.slow
def test_reset_forgets(policy):
    policy.eval()
    first = policy.predict_action(make_obs(policy, 2, seed=1))
    policy.predict_action(make_obs(policy, 2, seed=2))
    policy.reset()
    assert_same(first, policy.predict_action(make_obs(policy, 2, seed=1)))


@pytest.mark.slow
def test_an_episode_acts_the_same_in_any_batch_and_slot(policy):
    obs = make_obs(policy.eval(), 3)
    policy.reset([0, 1, 2], [11, 12, 13])
    together = policy.predict_action(obs, env_ids=[0, 1, 2])["action"]
    for row in (2, 0):
        policy.reset([5], [11 + row])
        one = {key: value[row : row + 1] for key, value in obs.items()}
        alone = policy.predict_action(one, env_ids=[5])["action"]
        torch.testing.assert_close(alone, together[row : row + 1], atol=1e-2, rtol=1e-4)


def test_observations_of_the_future_are_left_aside():
    policy = make_policy(*VARIANTS["unet-inpaint"]).eval()
    obs = make_obs(policy, 2, steps=len(policy.window.sample_obs_offsets))
    now = {key: value[:, : len(policy.obs_offsets)] for key, value in obs.items()}
    assert len(policy.window.sample_obs_offsets) > len(policy.obs_offsets)
    first = policy.predict_action(now)
    policy.reset()
    assert_same(policy.predict_action(obs), first)


def test_inference_form_acts_the_same(policy):
    obs = make_obs(policy.eval(), 2)
    before = policy.predict_action(obs)["action"]
    policy.reset()
    policy.prepare_for_inference()
    torch.testing.assert_close(policy.predict_action(obs)["action"], before, atol=0.01, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize(
    ("name", "smaller"),  # compiling takes longer the more layers there are
    [
        ("train_dot_pusht", "policy.n_layers=1"),
        ("train_diffusion_transformer_pusht", "policy.n_layer=1"),
        ("train_act_pusht", "policy.n_encoder_layers=1"),
    ],
)
def test_compiled_for_inference_acts_the_same(name, smaller):
    policy = make_policy(name, smaller).eval()
    obs = make_obs(policy, 1)
    policy.reset([0], seeds=[0])
    before = policy.predict_action(obs)["action"]
    policy.compile_for_inference()
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for _ in range(2):
        policy.reset([0], seeds=[0])
        after = policy.predict_action(obs)["action"]
        torch.testing.assert_close(after, before, atol=0.01, rtol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs + 1
