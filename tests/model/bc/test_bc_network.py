"""Shapes of every stage, and the memory of the GRU."""

import pytest
import torch
from torch import nn

from diffusion_policy.model.bc.bc_network import BCNetwork
from diffusion_policy.model.vision.plain_cnn import PlainCNN
from diffusion_policy.util.errors import UserError

SIZES = {"state_dim": 3, "n_cameras": 1, "action_dim": 3, "image_size": (84, 84)}


def n_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_maps_of_the_cnn():
    shapes, x = [], torch.zeros(2, 3, 84, 84)
    for layer in PlainCNN().convolutions:
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [(32, 21, 21), (64, 11, 11), (64, 11, 11), (64, 11, 11)]
    assert PlainCNN()(torch.zeros(2, 3, 84, 84)).shape == (2, 64)


@pytest.mark.parametrize(
    ("backbone", "n_features", "millions"),
    [
        ("cnn", 64, 0.4),
        pytest.param("resnet18", 512, 11.7, marks=pytest.mark.slow),
        pytest.param("vit_b_16", 768, 86.5, marks=pytest.mark.slow),
    ],
)
def test_stages_have_the_shapes_of_the_seed(backbone, n_features, millions):
    size = (32, 32) if backbone == "vit_b_16" else (84, 84)
    network = BCNetwork(**{**SIZES, "image_size": size}, backbone=backbone).eval()
    state, images = torch.zeros(2, 1, 3), [torch.zeros(2, 1, 3, *size)]
    with torch.no_grad():
        features = network.features(state, images)
        action, memory = network(state, images)
    assert features.shape == (2, 1, n_features + 3)
    assert network.head.hidden[0].weight.shape == (512, n_features + 3)
    assert network.head.hidden[3].weight.shape == (512, 512)
    assert network.head.last.weight.shape == (3, 512)
    assert action.shape == (2, 1, 3)
    assert action.abs().max() <= 1
    assert memory is None
    assert n_parameters(network) / 1e6 == pytest.approx(millions, rel=0.05)


def test_a_gru_remembers_what_it_saw():
    network = BCNetwork(**{**SIZES, "n_cameras": 0}, use_gru=True, dropout=0.0)
    state = torch.randn(2, 5, 3)
    whole, after = network(state, [])
    assert (whole.shape, after.shape) == ((2, 5, 3), (2, 128))
    memory, steps = None, []
    for step in state.unbind(1):
        action, memory = network(step[:, None], [], memory)
        steps.append(action)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)
    torch.testing.assert_close(memory, after)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "alexnet"}, "backbone is 'alexnet'; use one of resnet18, .* cnn, vit_b_16"),
        ({"backbone": "vit_b_16"}, r"image_size is \[84, 84\]; use two equal multiples of 16"),
        ({"backbone": "vit_b_16", "image_size": (96, 64)}, r"image_size is \[96, 64\]; use two eq"),
        ({"dropout": 1.0}, "dropout is 1.0; use at least 0 and less than 1"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        BCNetwork(**{**SIZES, **settings})
