from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from diffusion_policy.model.vision.feature_cache import FeatureCache

IMAGES = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class CountingEncoder(nn.Module):
    """Return a weighted sum of each image, and count the images."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(IMAGES[0].numel(), 5)
        self.n_encoded = 0

    def forward(self, images: Tensor) -> Tensor:
        self.n_encoded += len(images)
        return self.linear(images.flatten(1))


@pytest.fixture
def encoder() -> CountingEncoder:
    torch.manual_seed(0)
    return CountingEncoder().eval()


@torch.no_grad()
def show(encoder: CountingEncoder, *numbers: int) -> int:
    """Check the features of some images and return how many images were encoded."""
    before = encoder.n_encoded
    found = encoder(IMAGES[list(numbers)])
    encoded = encoder.n_encoded - before
    torch.testing.assert_close(found, CountingEncoder.forward(encoder, IMAGES[list(numbers)]))
    return encoded


calls = st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=12), max_size=8)


@given(calls=calls, capacity=st.integers(1, 10))
def test_features_are_those_of_the_images_in_any_order(calls, capacity):
    encoder = CountingEncoder().eval()
    FeatureCache(encoder, capacity)
    n_encoded = sum(show(encoder, *call) for call in calls)
    if capacity >= 8:
        assert n_encoded == len({number for call in calls for number in call})


def test_the_image_unused_for_longest_is_forgotten(encoder):
    FeatureCache(encoder, capacity=2)
    assert show(encoder, 0, 1, 0) == 2
    assert show(encoder, 2) == 1  # forgets 1, since 0 came after it
    assert show(encoder, 0) == 0
    assert show(encoder, 1) == 1


def write(encoder: CountingEncoder) -> None:
    with torch.no_grad():
        encoder.linear.bias.add_(1)


def average(encoder: CountingEncoder) -> None:
    torch._foreach_lerp_(list(encoder.requires_grad_(False).parameters()), [torch.ones(())] * 2, 1)


def load(encoder: CountingEncoder) -> None:
    encoder.load_state_dict({k: v + 1 for k, v in encoder.state_dict().items()})


def replace(encoder: CountingEncoder) -> None:
    encoder.linear = nn.Linear(IMAGES[0].numel(), 5)


@pytest.mark.parametrize("change", [write, average, load, replace])
def test_features_of_other_weights_are_not_served(encoder, change):
    FeatureCache(encoder, 8)
    assert show(encoder, 0) == 1
    change(encoder)
    assert show(encoder, 0) == 1
    assert show(copy.deepcopy(encoder), 0) == 1


def test_features_of_another_precision_are_not_served(encoder):
    FeatureCache(encoder, 8)
    show(encoder, 0)
    with torch.autocast("cpu", torch.bfloat16):
        assert show(encoder, 0) == 1
    assert show(encoder, 0) == 1


def test_training_and_gradients_remember_nothing_and_forget_the_rest(encoder):
    FeatureCache(encoder, 8)
    show(encoder, 0)
    encoder(IMAGES[:1]).sum().backward()
    assert encoder.linear.weight.grad.abs().sum() > 0
    assert show(encoder, 0) == 1
    assert show(encoder.train(), 0) == 1
    assert show(encoder.eval(), 0) == 1


def test_weights_made_in_inference_mode_are_never_remembered():
    with torch.inference_mode():
        encoder = CountingEncoder().eval()
        FeatureCache(encoder, 8)
        assert [show(encoder, 0) for _ in range(2)] == [1, 1]
