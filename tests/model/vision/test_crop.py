import itertools

import pytest
import torch

from diffusion_policy.model.vision.crop import Crop


def pixels(n, height, width):
    """Images (n, 2, H, W) whose pixels tell their row and column."""
    rows = torch.arange(height).view(1, 1, -1, 1).expand(n, 1, height, width)
    columns = torch.arange(width).view(1, 1, 1, -1).expand(n, 1, height, width)
    return torch.cat([rows, columns], dim=1).float()


def test_crop_is_centred_in_evaluation():
    crop = Crop((4, 6)).eval()(pixels(2, 8, 9))
    assert crop[0, 0, :, 0].tolist() == [2, 3, 4, 5]
    assert crop[1, 1, 0].tolist() == [1, 2, 3, 4, 5, 6]


def test_random_crops_are_windows_everywhere_one_draw_a_sample():
    torch.manual_seed(0)
    crops = Crop((4, 6))(pixels(400, 6, 8))
    top, left = crops[:, 0, 0, 0], crops[:, 1, 0, 0]
    torch.testing.assert_close(crops, pixels(1, 4, 6) + crops[:, :, :1, :1])
    places = set(zip(top.int().tolist(), left.int().tolist(), strict=True))
    assert places == set(itertools.product(range(3), repeat=2))


def test_random_crops_follow_the_global_seed():
    images, crop = torch.rand(8, 3, 20, 20), Crop((9, 9))
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(crop(images))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("training", [True, False])
def test_full_size_crop_changes_nothing(training):
    images = torch.rand(2, 3, 5, 7)
    assert torch.equal(Crop((5, 7)).train(training)(images), images)


def test_a_share_of_the_sides_is_a_crop_of_any_image():
    images = torch.rand(2, 3, 96, 128)
    by_share, by_size = Crop(0.875).eval(), Crop((84, 112)).eval()
    assert torch.equal(by_share(images), by_size(images))
    assert by_share(images[..., :64, :64]).shape == (2, 3, 56, 56)
