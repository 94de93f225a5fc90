"""Images that are scaled where they are decoded equal those that a transform scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from diffusion_policy.dataset.batch_order import BatchIndex
from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.dataset.window_dataset import WindowDataset
from diffusion_policy.spec.window import Window
from diffusion_policy.transforms.images import CenterCrop, Resize, resized
from diffusion_policy.transforms.keys import Rename
from tests.dataset.stores.lerobot import small_dataset

LENGTHS = (5, 7)
KEY = "observation.images.front"
META = {"obs": {KEY: {"shape": [3, 32, 48], "type": "rgb"}}, "action": {"shape": [2]}}
WINDOW = Window((-1, 0), (0, 1))


@pytest.fixture(scope="module", params=["video", "image"])
def data(request, tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    arrays = {
        KEY: small_dataset.small_images(12),
        "action": rng.normal(size=(12, 2)).astype(np.float32),
        "task": ["move"] * 12,
    }
    root = tmp_path_factory.mktemp("data") / request.param
    write = small_dataset.write_v21 if request.param == "video" else small_dataset.write_v30
    return write(root, arrays, LENGTHS)


def windows(data, cache_dir, *transforms, **options) -> np.ndarray:
    dataset = WindowDataset(
        data, META, WINDOW, transforms=transforms, cache_dir=cache_dir, val_ratio=0, **options
    )
    (images,) = dataset.__getitems__(BatchIndex(np.arange(12), 0))["obs"].values()
    return images.numpy()


@pytest.mark.parametrize("cache", ["none", "disk", "memory"])
def test_pixels_are_those_of_the_transform(data, tmp_path, cache):
    if "image" in data.name and cache == "none":
        pytest.skip("pictures in parquet files are not read singly")
    raw = windows(data, tmp_path)
    found = windows(data, tmp_path, Resize(16, 24), cache=cache)
    np.testing.assert_array_equal(found, resized(raw, 16, 24))
    assert found.shape == (12, 2, 3, 16, 24)


def test_the_cache_is_as_small_as_the_images(data, tmp_path):
    windows(data, tmp_path, Resize(16, 24), CenterCrop(16, 16), cache="disk")
    (cached,) = tmp_path.glob("*.npy")
    assert np.load(cached).shape == (12, 3, 16, 24)
    windows(data, tmp_path, Resize(8, 12), cache="disk")  # another size is another file
    windows(data, tmp_path, cache="disk")
    shapes = sorted(np.load(path).shape[2] for path in tmp_path.glob("*.npy"))
    assert shapes == [8, 16, 32]


@pytest.mark.parametrize(
    "transforms",
    [
        (CenterCrop(32, 32), Resize(16, 16)),
        (Rename({KEY: "front"}), Resize(16, 16)),
        (Resize(64, 96),),  # a cache of larger images would be larger
    ],
    ids=["crop first", "rename first", "larger"],
)
def test_other_transforms_see_images_as_recorded(data, tmp_path, transforms):
    raw = windows(data, tmp_path)
    found = windows(data, tmp_path, *transforms, cache="disk")
    expected = raw if "Crop" not in str(transforms[0]) else raw[..., 8:40]
    np.testing.assert_array_equal(found, resized(expected, *found.shape[-2:]))
    (cached,) = tmp_path.glob("*.npy")
    assert np.load(cached).shape == (12, 3, 32, 48)


def test_a_store_that_others_read_is_left_as_it_is(data, tmp_path):
    store = open_store(data, tmp_path)
    scaled = windows(store, tmp_path, Resize(16, 24))
    assert windows(store, tmp_path).shape[-2:] == (32, 48)
    np.testing.assert_array_equal(scaled, resized(windows(store, tmp_path), 16, 24))
