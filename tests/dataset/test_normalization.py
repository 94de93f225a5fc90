from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from diffusion_policy.dataset.normalization import fit_normalizer
from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.util.errors import UserError

POSE = {
    "shape": [10],
    "parts": [
        {"name": "position", "size": 3, "limits": [[0, 1], [0, 2], [-1, 1]]},
        {"name": "rotation", "size": 6, "representation": "rotation_6d"},
        {"name": "gripper", "size": 1, "normalization": "QUANTILE"},
    ],
}


def fit(obs, action, modes, /, **data):
    spec = TaskSpec.parse({"obs": obs, "action": action})
    return fit_normalizer(spec, modes, data.__getitem__)


@pytest.mark.parametrize("mode", ["MIN_MAX", "MEAN_STD", "QUANTILE"])
def test_one_row_is_shifted_and_not_scaled(mode):
    row = torch.tensor([[3.0, -5.0]])
    field = fit({}, {"shape": [2]}, {"ACTION": mode}, action=row.numpy())["action"]
    torch.testing.assert_close(field.normalize(row), torch.zeros(1, 2))
    torch.testing.assert_close(field.unnormalize(torch.ones(1, 2)), row + 1)


def test_one_vector_is_normalised_part_by_part():
    action = np.random.default_rng(0).normal(size=(500, 10)).astype(np.float32)
    field = fit({}, POSE, {"ACTION": "MIN_MAX"}, action=action)["action"]
    x = torch.tensor([[0.5, 2.0, -1.0, *[0.7] * 6, np.quantile(action[:, 9], 0.99)]])
    expected = torch.tensor([[0.0, 1.0, -1.0, *[0.7] * 6, 1.0]])
    torch.testing.assert_close(field.normalize(x), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(field.unnormalize(expected), x, atol=1e-5, rtol=0)
    np.testing.assert_allclose(field.get_input_stats()["max"], action.max(0))


def test_limits_per_number_equal_one_pair_for_all():
    data = np.random.default_rng(0).uniform(0, 512, (50, 2)).astype(np.float32)
    one, each = (
        fit({}, {"shape": [2], "limits": limits}, {}, action=data)["action"]
        for limits in ([0, 512], [[0, 512], [0, 512]])
    )
    assert torch.equal(one.scale, each.scale)
    assert torch.equal(one.offset, each.offset)


@pytest.mark.parametrize(
    ("mode", "limits", "near", "far"),
    [("MIN_MAX", [0, 4], 0.0, 0.5), ("MIN_MAX", None, 0.0, 1.0), ("IDENTITY", None, 0.0, 2.0)],
)
def test_depth_has_one_scale_for_all_pixels(mode, limits, near, far):
    depth = np.linspace(0, 2, 48, dtype=np.float32).reshape(3, 1, 4, 4)
    entry = {"shape": [4, 4], "type": "depth", "limits": limits}
    normalizer = fit(
        {"depth": entry}, {"shape": [1]}, {"DEPTH": mode}, depth=depth, action=depth[:, 0, 0, :1]
    )
    normalised = normalizer["depth"].normalize(depth)
    assert normalised.shape == depth.shape
    assert normalised.min().item() == pytest.approx(near)
    assert normalised.max().item() == pytest.approx(far)


def test_text_has_no_normaliser():
    data = np.zeros((4, 1), np.float32)
    normalizer = fit({"task": {"type": "text"}}, {"shape": [1]}, {}, action=data)
    assert "task" not in normalizer


@pytest.mark.parametrize(
    ("obs", "modality", "mode"),
    [
        ({"shape": [3, 4, 4], "type": "rgb"}, "VISUAL", "QUANTILE"),
        ({"shape": [2]}, "STATE", "ZSCORE"),
    ],
)
def test_unknown_modes_are_named(obs, modality, mode):
    data = np.zeros((4, 2), np.float32)
    with pytest.raises(UserError, match=rf"policy\.normalization\.{modality} is '{mode}'; use"):
        fit({"x": obs}, {"shape": [2]}, {modality: mode}, x=data, action=data)


@pytest.mark.parametrize(("highest", "warns"), [(1.0, False), (1.005, False), (1.5, True)])
def test_data_outside_the_limits_are_warned_of(highest, warns):
    part = {"name": "arm", "size": 1, "limits": [0, 1]}
    spec = TaskSpec.parse({"obs": {}, "action": {"shape": [1], "parts": [part]}})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fit_normalizer(spec, {}, lambda key: np.array([[0.0], [highest]], np.float32))
    expected = "action.arm has values from 0 to 1.5 in the training episodes, outside its limits"
    assert [str(w.message).startswith(expected) for w in told] == [True] * warns
