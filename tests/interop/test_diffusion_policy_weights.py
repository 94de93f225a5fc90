"""Weights of published checkpoints that have no place in our policies."""

import hydra
import pytest
import torch

from diffusion_policy.interop.diffusion_policy_config import our_config
from diffusion_policy.interop.diffusion_policy_weights import load_published_weights
from diffusion_policy.util.errors import UserError
from tests.interop.published import field, low_dim_config, low_dim_state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.extra": torch.zeros(3)}, "model.extra has shape (3,) in the file and none"),
        ({"model.final_conv.1.bias": None}, "final_conv.1.bias has shape none in the file and (2,"),
        ({"normalizer.params_dict.obs.scale": None}, "obs.scale has shape none"),
        (field("keypoint", 2, 1, 0), "normalizer.params_dict.keypoint"),
        ({"model.final_conv.1.bias": "text"}, "final_conv.1.bias is no tensor"),
    ],
)
def test_entries_without_a_place_are_refused(tmp_path, change, message):
    state = {**low_dim_state("unet_global"), **change}
    state = {name: value for name, value in state.items() if value is not None}
    policy = hydra.utils.instantiate(our_config(low_dim_config("unet_global"))[0].policy)
    with pytest.raises(UserError) as refused:
        load_published_weights(policy, state)
    assert message in str(refused.value)
