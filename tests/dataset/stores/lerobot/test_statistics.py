"""Statistics agree with those that the published package wrote, and with plain numpy."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from diffusion_policy.dataset.stores.lerobot.statistics import (
    QUANTILES,
    aggregate,
    aggregate_features,
    as_arrays,
    as_lists,
    image_statistics,
    is_sound,
    sampled_steps,
    vector_statistics,
)
from diffusion_policy.dataset.stores.lerobot.tables_3 import episode_rows, statistics_of_row
from tests.dataset.stores.lerobot.golden import GOLDEN


def golden_episodes(name: str) -> list[dict[str, list]]:
    """Columns of each episode of a golden data set."""
    files = sorted((GOLDEN / name).glob("data/*/*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    episodes: dict[int, list[dict]] = {}
    for row in rows:
        episodes.setdefault(row["episode_index"], []).append(row)
    return [{key: [row[key] for row in each] for key in each[0]} for each in episodes.values()]


def statistics_of(column: list) -> dict[str, np.ndarray]:
    if isinstance(column[0], dict):
        decoded = [cv2.imdecode(np.frombuffer(cell["bytes"], np.uint8), 1) for cell in column]
        return image_statistics(np.stack(decoded)[..., ::-1].transpose(0, 3, 1, 2))
    return vector_statistics(np.array(column))


def published(name: str) -> list[dict[str, dict[str, np.ndarray]]]:
    """The statistics of each episode that came with a golden data set."""
    if name == "v21":
        lines = (GOLDEN / name / "meta/episodes_stats.jsonl").read_text().splitlines()
        rows = [json.loads(line)["stats"] for line in lines]
        return [{key: as_arrays(lists) for key, lists in row.items()} for row in rows]
    return [statistics_of_row(row) for _, rows in episode_rows(GOLDEN / name) for row in rows]


@pytest.mark.parametrize("name", ["v21", "v30", "v30_image"])
def test_episodes_are_as_published(name):
    for episode, wanted in zip(golden_episodes(name), published(name), strict=True):
        for key, column in episode.items():
            found = statistics_of(column)
            for statistic, value in wanted[key].items():
                # In the published package the squares of pixels overflow.
                if not (key.startswith("observation.images") and statistic == "std"):
                    np.testing.assert_allclose(found[statistic], value, rtol=0, atol=1e-5)
                    assert found[statistic].shape == value.shape


@pytest.mark.parametrize("name", ["v30", "v30_image"])
def test_the_sum_of_episodes_is_as_published(name):
    wanted = json.loads((GOLDEN / name / "meta/stats.json").read_text())
    found = aggregate_features(published(name))
    assert found.keys() == wanted.keys()
    for key, statistics in found.items():
        for statistic in ("min", "max", "mean", "std", "count"):
            value = wanted[key][statistic]
            np.testing.assert_allclose(statistics[statistic], value, rtol=0, atol=1e-5)


def test_the_spread_of_images_is_as_version_2_wrote_it():
    """The golden pictures hold one red and a ramp of green and blue along each side."""
    wanted = published("v21")[0]["observation.images.front"]
    (first, *_) = golden_episodes("v30_image")
    found = statistics_of(first["observation.images.front"])
    np.testing.assert_allclose(found["std"][1:], wanted["std"][1:], atol=1e-5)


def test_statistics_of_pixels_are_those_of_numpy():
    frames = np.random.default_rng(0).integers(0, 256, (5, 3, 20, 30), np.uint8)
    found = image_statistics(frames)
    pixels = frames.transpose(1, 0, 2, 3).reshape(3, -1) / 255
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(found[name].ravel(), getattr(pixels, name)(axis=1), atol=1e-9)
    for name, level in QUANTILES.items():
        np.testing.assert_allclose(
            found[name].ravel(), np.quantile(pixels, level, axis=1), atol=1 / 255
        )
    assert found["count"] == [5]


def test_large_images_are_thinned_out():
    frames = np.zeros((1, 3, 300, 300), np.uint8)
    frames[..., 1::2, 1::2] = 255  # every second pixel is looked at, from the first on
    assert image_statistics(frames)["max"].max() == 0
    assert image_statistics(frames[..., :298, :298])["max"].min() == 1


@pytest.mark.parametrize(
    ("length", "n"), [(1, 1), (99, 99), (101, 100), (1000, 177), (10**6, 10**4)]
)
def test_frames_are_sampled_evenly(length, n):
    steps = sampled_steps(length)
    assert len(steps) == n
    assert (steps[0], steps[-1]) == (0, length - 1)
    assert (np.diff(steps) >= 1).all()


def test_single_constant_and_large_numbers_have_statistics():
    for values in ([3.0], [1e9] * 7, [True, False], [[[1, 2], [3, 4]]] * 3):
        found = vector_statistics(np.array(values))
        shape = np.shape(values)[1:] or (1,)
        for name in QUANTILES:
            assert found[name].shape == shape
            low, high = found["min"] - 1e-9, found["max"] + 1e-9
            assert ((low <= found[name]) & (found[name] <= high)).all()


def test_the_sum_of_episodes_is_that_of_their_frames():
    rng = np.random.default_rng(0)
    parts = [rng.normal(i, 1 + i, (5 + i, 2)) for i in range(3)]
    found = aggregate([vector_statistics(part) for part in parts])
    whole = vector_statistics(np.concatenate(parts))
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(found[name], whole[name])
    each = [vector_statistics(part) for part in parts]
    assert found["q10"].tolist() == np.min([e["q10"] for e in each], axis=0).tolist()
    assert found["q90"].tolist() == np.max([e["q90"] for e in each], axis=0).tolist()
    assert "q90" not in aggregate([each[0], {k: v for k, v in each[1].items() if k != "q90"}])


def test_statistics_that_cannot_be_are_not_kept():
    good = image_statistics(np.random.default_rng(0).integers(0, 9, (2, 3, 4, 4), np.uint8))
    assert is_sound(as_arrays(as_lists(good)), quantiles=True)
    assert not is_sound({**good, "std": good["std"] * 0}, quantiles=True)
    without = {name: value for name, value in good.items() if name != "q50"}
    assert is_sound(without, quantiles=False)
    assert not is_sound(without, quantiles=True)


def test_numbers_that_are_not_finite_are_left_out():
    values = np.array([[1.0, np.nan], [np.inf, np.nan], [3.0, np.nan]])
    found = vector_statistics(values)
    alone = vector_statistics(np.array([[1.0], [3.0]]))
    for name in ("min", "max", "mean", "std", *QUANTILES):
        assert found[name][0] == alone[name][0]
        assert found[name][1] == pytest.approx(0, abs=1e-6)
    assert found["count"] == [3]
