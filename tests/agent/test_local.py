import copy

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from toy_transform import Centimetres

from diffusion_policy.agent.local import LocalAgent, load_agent
from diffusion_policy.checkpoint.checkpoint_file import save_checkpoint
from diffusion_policy.env_runner.env_runner import EnvRunner
from diffusion_policy.gym_util.make_env import make_env
from diffusion_policy.model.common.normalizer import LinearNormalizer
from diffusion_policy.transforms.pipeline import Pipeline
from diffusion_policy.util.errors import UserError
from tests.configs import compose_config, tiny_policy
from tests.policy.test_contract import make_policy

FORMS = {
    "dot": ("train_dot_pusht",),
    "dot following plans": (
        "train_dot_pusht",
        "policy.predict_every_n=2",
        "policy.stall_skip=2",
        "policy.alpha=0.75",
    ),
    "diffusion": ("train_diffusion_unet_pusht",),
    "diffusion with past actions": (
        "train_diffusion_unet_pusht",
        "policy.conditioning=inpaint",
        "policy.past_action_visible=true",
        "policy.n_obs_steps=4",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("n_latency_steps", [0, 2])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_a_loop_of_ones_own_equals_an_episode_of_the_runner(form, n_latency_steps):
    name, *overrides = form
    policy = make_policy(name, *overrides).eval()
    if n_latency_steps and "policy.past_action_visible=true" in overrides:
        with pytest.raises(UserError, match="past_action_visible"):
            LocalAgent(policy, n_latency_steps=n_latency_steps)
        return
    cfg = compose_config(name)
    with EnvRunner(
        cfg.task.env_runner.env,
        cfg.task.shape_meta,
        n_train=0,
        n_test=1,
        n_outcome_vis=1,  # keeps the actions
        n_workers=1,
        max_steps=21,
        n_latency_steps=n_latency_steps,
        progress=False,
    ) as runner:
        runner.run(LocalAgent(policy))
        (episode,) = runner.episodes
        (chunks,) = runner._kept.values()

    env = make_env(cfg.task.env_runner.env, max_steps=21)
    agent = LocalAgent(policy, n_latency_steps=n_latency_steps)
    agent.reset(seeds=[episode.start.seed])
    observation, _ = env.reset(seed=episode.start.seed)
    executed, rewards, done = [], [], False
    while not done:
        executed.append(agent.act(observation).action[0])
        observation, reward, terminated, truncated, _ = env.step(executed[-1])
        rewards.append(reward)
        done = terminated or truncated
    np.testing.assert_array_equal(executed, np.concatenate(chunks)[: len(executed)])
    assert (sum(rewards), len(rewards)) == (episode.sum_reward, episode.length)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train_dot_pusht", "train_diffusion_unet_pusht"])
def test_a_checkpoint_acts_in_two_lines(tmp_path, name):
    policy = make_policy(name).eval()
    checkpoint = tmp_path / "latest.ckpt"
    cfg = compose_config(name, *tiny_policy(name))
    OmegaConf.update(cfg, "task.fps", 10, force_add=True)
    config = OmegaConf.to_yaml(cfg, resolve=True)
    save_checkpoint(checkpoint, config, {"model": policy.state_dict()})
    observation = {
        key: np.full(field.shape, 100, np.float32) for key, field in policy.shape_meta.obs.items()
    }

    agent = load_agent(checkpoint, "cpu", n_latency_steps=1)
    actions = agent.act(observation)

    assert agent.n_latency_steps == 1
    expected = LocalAgent(policy, n_latency_steps=1).act(observation)
    np.testing.assert_allclose(actions.action, expected.action, rtol=1e-4, atol=0.01)
    assert actions.action.dtype == np.float32
    assert agent.act(observation).times[0] == pytest.approx(0.1)


def test_a_policy_of_several_robots_acts_as_the_one_named():
    policy = make_policy("train_dot_pusht").eval()
    small, large = policy.normalizer, copy.deepcopy(policy.normalizer)
    for field in large.params_dict.values():
        field.scale.data /= 10
    policy.normalizer = LinearNormalizer.of_embodiments({"small": small, "large": large})
    for name, index in (("small", 1), ("large", 0)):
        LocalAgent(policy, embodiment=name)
        assert policy.embodiment == index
    for name in (None, "huge"):
        with pytest.raises(UserError, match=f"trained on the robots large, small, .* {name!r}"):
            LocalAgent(policy, embodiment=name)


def test_acting_in_training_leaves_no_trace():
    policy = make_policy("train_dot_pusht").train()
    before = torch.get_rng_state()
    agent = LocalAgent(policy)
    with agent.undisturbed(seed=0):
        assert not policy.training
        torch.rand(3)
    assert policy.training
    assert torch.equal(torch.get_rng_state(), before)


def test_low_precision_rounds():
    policy = make_policy("train_dot_pusht").eval()
    observation = {
        key: np.full(field.shape, 100, np.float32) for key, field in policy.shape_meta.obs.items()
    }
    full = LocalAgent(policy).act(observation).action
    policy.reset()
    low = LocalAgent(policy, precision="bf16").act(observation).action
    assert not np.array_equal(full, low)
    np.testing.assert_allclose(full, low, rtol=0.2, atol=20)


def test_transforms_lie_between_raw_data_and_policy():
    policy = make_policy("train_dot_pusht").eval()
    observation = {
        key: np.full(field.shape, 100, np.float32) for key, field in policy.shape_meta.obs.items()
    }
    seen = {**observation, "agent_pos": observation["agent_pos"] * 100}
    expected = LocalAgent(policy).act(seen).action / 100
    policy.reset()
    agent = LocalAgent(policy, Pipeline.of([Centimetres("agent_pos")], policy.shape_meta))
    np.testing.assert_array_equal(agent.act(observation).action, expected)
