from __future__ import annotations

import numpy as np
import pytest

from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.transforms.images import CenterCrop, Resize
from diffusion_policy.transforms.pipeline import Pipeline
from diffusion_policy.util.errors import UserError

SPEC = TaskSpec.parse(
    {
        "obs": {
            "camera": {"shape": [3, 4, 6], "type": "rgb"},
            "depth": {"shape": [4, 6], "type": "depth"},
            "position": {"shape": [2]},
        },
        "action": {"shape": [2]},
    }
)
red, green, blue = 1, 2, 3
rows = 10 * np.arange(4)[:, None] + np.arange(6)
images = np.stack([rows + colour for colour in (red, green, blue)]).astype(np.uint8)
OBS = {
    "camera": images[None, None],
    "depth": np.float32(rows)[None, None, None],
    "position": np.zeros((1, 1, 2), np.float32),
}


def seen(transform):
    pipeline = Pipeline.of([transform], SPEC)
    obs = pipeline.observe(OBS)[-1]
    np.testing.assert_array_equal(obs["position"], OBS["position"])
    return obs


def test_smaller_images_hold_means_of_areas_and_depths_of_pixels():
    obs = seen(Resize(2, 3))
    expected = images.reshape(3, 2, 2, 3, 2).mean((2, 4))
    np.testing.assert_allclose(obs["camera"][0, 0], expected, atol=0.5)
    assert set(obs["depth"].ravel()) < set(rows.ravel().astype(np.float32))


def test_larger_images_interpolate():
    camera = seen(Resize(8, 12, keys=["camera"]))["camera"][0, 0].astype(int)
    assert camera.shape == (3, 8, 12)
    np.testing.assert_array_equal(
        camera[:, [0, 0, -1, -1], [0, -1, 0, -1]], images[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    )
    assert (np.diff(camera, axis=1) >= 0).all()
    assert (np.diff(camera, axis=1) <= 5).all()


def test_the_middle_stays():
    obs = seen(CenterCrop(2, 2))
    np.testing.assert_array_equal(obs["camera"][0, 0], images[:, 1:3, 2:4])
    np.testing.assert_array_equal(obs["depth"][0, 0, 0], rows[1:3, 2:4])


def test_only_named_images_change():
    obs = seen(CenterCrop(2, 2, keys=["camera"]))
    assert obs["depth"] is OBS["depth"]


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (CenterCrop(5, 2), "CenterCrop asks for 5 x 2 of 'camera', which is 4 x 6"),
        (Resize(2, 2, keys=["position"]), "Resize.keys has 'position', which is low_dim"),
        (Resize(2, 2, keys=["wrist"]), "asks for 'wrist', which is not there"),
    ],
)
def test_what_does_not_fit_is_named(transform, message):
    with pytest.raises(UserError, match=message):
        transform.spec(SPEC)


def test_an_image_has_pixels_and_not_too_many():
    with pytest.raises(UserError, match=r"width 100000; .* at most 50,000,000 in all"):
        Resize(100_000, 100_000)
    with pytest.raises(UserError, match="Resize has height 0 and width 3; use at least 1 pixel"):
        Resize(0, 3)
