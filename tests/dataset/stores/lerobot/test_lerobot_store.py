from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from diffusion_policy.dataset.stores.lerobot.lerobot_store import LeRobotStore
from tests.dataset.stores.lerobot.golden import EXPECTED, GOLDEN, expected


@pytest.mark.parametrize("cache", ["none", "disk", "memory"])
@pytest.mark.parametrize("name", EXPECTED)
def test_golden_data_sets_are_read_right(tmp_path, name, cache):
    if name == "v30_image" and cache == "none":
        pytest.skip("pictures in parquet files are not read singly")
    store = LeRobotStore(GOLDEN / name, tmp_path, cache)
    episodes = expected(name)["episodes"]
    assert store.fps == 10
    assert store.episode_ends.tolist() == [e["dataset_to_index"] for e in episodes]
    steps = np.arange(store.n_steps)
    for key in ("state", "action"):
        recorded = np.concatenate([e["frames"][key] for e in episodes])
        feature = "action" if key == "action" else f"observation.{key}"
        np.testing.assert_allclose(store.read(feature, steps), recorded, atol=1e-5)
    tasks = [
        expected(name)["tasks"][index] for e in episodes for index in e["frames"]["task_index"]
    ]
    assert store.read("task", steps) == tasks
    firsts = [0, *store.episode_ends[:-1]]
    assert [store.episode(i).task for i in range(3)] == [tasks[first] for first in firsts]
    for camera in episodes[0]["images"]:
        images = store.read(camera, steps)
        assert images.dtype == np.uint8
        means = np.concatenate([e["images"][camera]["source_mean_rgb"] for e in episodes])
        # Steps differ by 5 and more, so one that is off by one shows.
        np.testing.assert_allclose(images.mean(axis=(2, 3)), means, atol=3)
        if "decoded_mean_rgb" in episodes[0]["images"][camera]:
            decoded = [e["images"][camera]["decoded_mean_rgb"] for e in episodes]
            np.testing.assert_allclose(images.mean(axis=(2, 3)), np.concatenate(decoded), atol=0.5)
