"""Statistics of episodes as LeRobot data sets hold them, and of a data set from its episodes.

A statistic is an array of float64: (n,) for a vector of n numbers, (3, 1, 1) in [0, 1] for an
image; ``count`` is (1,) int64, the number of frames that were looked at.

Two things differ from what lerobot 0.4 writes. Its squares of pixels overflow, so that its standard
deviation of an image within an episode is 0 or close to it; here it is right. And it averages the
quantiles of episodes, while later versions take the outermost ones, as is done here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Statistics = dict[str, np.ndarray]
"""min, max, mean, std, count and the quantiles of one feature, by name."""

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_BASIC = ("min", "max", "mean", "std", "count")

_BINS = 5000
_MARGIN = 1e-10  # the range of the bins reaches this far beyond the values
_FEWEST, _MOST, _GROWTH = 100, 10_000, 0.75  # frames looked at in an episode of L: about L^0.75
_LARGE, _TARGET = 300, 150  # from this side on, images are thinned out to about the second number


def vector_statistics(values: np.ndarray) -> Statistics:
    """Statistics over the frames of ``values`` (L, ...), of numbers of any type.

    They are those of the finite numbers; a number that is never finite has statistics of 0.
    """
    rows = np.asarray(values, np.float64).reshape(len(values), -1)
    shape = values.shape[1:] or (1,)
    finite = np.isfinite(rows)
    if finite.all():
        found = {
            "min": rows.min(axis=0),
            "max": rows.max(axis=0),
            "mean": rows.mean(axis=0),
            "std": rows.std(axis=0),
        }
        columns = list(rows.T)
    else:
        columns = [c[f] if f.any() else np.zeros(1) for c, f in zip(rows.T, finite.T, strict=True)]
        found = {
            name: np.array([getattr(column, name)() for column in columns])
            for name in ("min", "max", "mean", "std")
        }
    quantiles = np.stack([_quantiles(*np.unique(c, return_counts=True)) for c in columns])
    found |= dict(zip(QUANTILES, quantiles.T, strict=True))
    return {name: value.reshape(shape) for name, value in found.items()} | {
        "count": np.array([len(rows)])
    }


def image_statistics(frames: np.ndarray) -> Statistics:
    """Statistics of each colour over all pixels of uint8 ``frames`` (n, C, H, W)."""
    counted = PixelCounts()
    counted.add(frames)
    return counted.statistics()


class PixelCounts:
    """How often each value occurs among the pixels of frames that come in blocks."""

    def __init__(self) -> None:
        self._counts: np.ndarray = np.zeros((1, 256), np.int64)
        self._n_frames = 0

    def add(self, frames: np.ndarray) -> None:
        """Count uint8 frames (n, C, H, W); every k-th pixel of large ones."""
        longest = max(frames.shape[2:])
        step = int(longest / _TARGET) if longest >= _LARGE else 1
        colours = [frames[:, c, ::step, ::step].ravel() for c in range(frames.shape[1])]
        self._counts = self._counts + [np.bincount(pixels, minlength=256) for pixels in colours]
        self._n_frames += len(frames)

    def statistics(self) -> Statistics:
        """Of the frames so far, at least one."""
        found = [_of_pixels(counts) for counts in self._counts]
        return {name: np.stack([f[name] for f in found])[:, None, None] for name in found[0]} | {
            "count": np.array([self._n_frames])
        }


def _of_pixels(counts: np.ndarray) -> dict[str, np.ndarray]:
    values = np.flatnonzero(counts)
    counts = counts[values]
    mean = np.average(values, weights=counts)
    found = {
        "min": values[0],
        "max": values[-1],
        "mean": mean,
        "std": np.sqrt(np.average((values - mean) ** 2, weights=counts)),
        **dict(zip(QUANTILES, _quantiles(values, counts), strict=True)),
    }
    return {name: np.asarray(value / 255) for name, value in found.items()}


def _quantiles(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The :data:`QUANTILES` of sorted distinct ``values``, interpolated within equal bins."""
    low, high = values[0] - _MARGIN, values[-1] + _MARGIN
    wanted = np.array(list(QUANTILES.values())) * counts.sum()
    if (high - low) / _BINS <= np.spacing(max(abs(low), abs(high))):  # such bins are no numbers
        return values[np.searchsorted(np.cumsum(counts), wanted)]
    histogram, edges = np.histogram(values, _BINS, (low, high), weights=counts)
    below = np.cumsum(histogram)
    bins = np.minimum(np.searchsorted(below, wanted), _BINS - 1)
    share = (wanted - (below[bins] - histogram[bins])) / histogram[bins]
    inside = edges[bins] + share * (edges[bins + 1] - edges[bins])
    return np.where(bins == 0, edges[0], inside)


def sampled_steps(length: int) -> np.ndarray:
    """The frames of an episode of ``length`` whose images statistics are made of."""
    n = length if length < _FEWEST else min(max(int(length**_GROWTH), _FEWEST), _MOST)
    return np.round(np.linspace(0, length - 1, n)).astype(np.int64)


def aggregate(episodes: Sequence[Mapping[str, np.ndarray]]) -> Statistics:
    """Statistics of all frames of several episodes from those of each.

    Quantiles are bounds: up to the median the least of the episodes, above it the greatest. Those
    that an episode lacks are left out.
    """
    counts = np.array([int(e["count"][0]) for e in episodes], np.float64)
    weights = counts / counts.sum()

    def stacked(name: str) -> np.ndarray:
        return np.stack([np.asarray(e[name], np.float64) for e in episodes])

    mean = np.tensordot(weights, stacked("mean"), axes=1)
    variance = np.tensordot(weights, stacked("std") ** 2 + (stacked("mean") - mean) ** 2, axes=1)
    merged = {
        "min": stacked("min").min(axis=0),
        "max": stacked("max").max(axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": np.array([int(counts.sum())]),
    }
    for name, level in QUANTILES.items():
        if all(name in e for e in episodes):
            merged[name] = stacked(name).min(axis=0) if level <= 0.5 else stacked(name).max(axis=0)
    return merged


def aggregate_features(
    episodes: Iterable[Mapping[str, Mapping[str, np.ndarray]]],
) -> dict[str, Statistics]:
    """:func:`aggregate` for each feature of the episodes."""
    by_feature: dict[str, list[Mapping[str, np.ndarray]]] = {}
    for episode in episodes:
        for key, statistics in episode.items():
            by_feature.setdefault(key, []).append(statistics)
    return {key: aggregate(each) for key, each in by_feature.items()}


def is_sound(statistics: Mapping[str, np.ndarray], *, quantiles: bool) -> bool:
    """Whether given statistics of an image may be kept: complete, and with a spread if they vary.

    Args:
        quantiles: whether these are needed.
    """
    needed = (*_BASIC, *(QUANTILES if quantiles else ()))
    if any(name not in statistics for name in needed):
        return False
    varies = np.asarray(statistics["max"]) > np.asarray(statistics["min"])
    return bool((np.asarray(statistics["std"])[varies] > 0).all())


def without_quantiles(statistics: Mapping[str, np.ndarray]) -> Statistics:
    """The statistics that data sets of v2.1 hold."""
    return {name: statistics[name] for name in _BASIC}


def as_lists(statistics: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Statistics as plain lists, for files."""
    return {name: np.asarray(value).tolist() for name, value in statistics.items()}


def as_arrays(statistics: Mapping[str, Any]) -> Statistics:
    """Statistics from the lists of a file."""
    return {
        name: np.asarray(value, np.int64 if name == "count" else np.float64)
        for name, value in statistics.items()
        if name in (*_BASIC, *QUANTILES)
    }
