"""Configs of published checkpoints, translated."""

from diffusion_policy.interop.diffusion_policy_config import our_config
from tests.interop.published import hybrid_config, low_dim_config


def test_random_crops_at_inference_are_remarked_on():
    config = hybrid_config()
    config["policy"]["eval_fixed_crop"] = False
    assert "eval_fixed_crop is false" in our_config(config)[1][0]


def test_schedule_defaults_are_those_of_diffusers():
    config = low_dim_config("transformer")
    config["policy"]["noise_scheduler"] = {"_target_": "diffusers.DDIMScheduler"}
    config["policy"]["num_inference_steps"] = 8
    ours = our_config(config)[0].policy.noise_scheduler
    assert (ours.sampler, ours.num_train_timesteps, ours.num_inference_steps) == ("ddim", 1000, 8)
    assert ours.beta_schedule == "linear"
