import pytest
import torch

from diffusion_policy.model.vision.keypoint_cnn import KeypointCNN, SpatialSoftmax


def test_places_are_in_full_precision_under_autocast():
    network = KeypointCNN()
    with torch.autocast("cpu", torch.bfloat16):
        features = network(torch.randn(2, 3, 32, 32))
    assert features.dtype == torch.float32
    assert (features - features.bfloat16()).any()


def test_softmax_gives_the_place_of_a_peak_whatever_autocast_says():
    maps = torch.zeros(1, 2, 5, 9)
    maps[0, 0, 1, 6] = 30
    maps[0, 1, 4, 0] = 30
    with torch.autocast("cpu", torch.bfloat16):
        points = SpatialSoftmax()(maps.bfloat16())
    # Abscissas, then ordinates: columns 6 of 0..8 and 0, rows 1 of 0..4 and 4.
    torch.testing.assert_close(points, torch.tensor([[0.5, -1.0, -0.5, 1.0]]))


@pytest.mark.parametrize("size", [(96, 96), (64, 48)])
def test_images_of_any_size(size):
    network = KeypointCNN(n_keypoints=10)
    features = network(torch.randn(3, 3, *size))
    assert features.shape == (3, 20)
    features.square().sum().backward()
    assert all(1e-4 < p.grad.norm() < 1e4 for p in network.parameters())


@pytest.mark.slow
def test_finds_a_dot_after_a_few_steps():
    torch.manual_seed(0)
    network = KeypointCNN(n_keypoints=16)
    network.fc = torch.nn.Linear(32, 2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    places = torch.randint(4, 28, (300, 32, 2))
    rows, columns = torch.arange(32).view(-1, 1), torch.arange(32)
    for place in places:
        near = ((rows - place[:, 0, None, None]).abs() < 4) & (
            (columns - place[:, 1, None, None]).abs() < 4
        )
        images = near.float()[:, None].expand(-1, 3, -1, -1)
        error = (network(images) - (place / 16 - 1)).abs().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    assert error < 0.1  # of 0.375, that of always answering the middle
