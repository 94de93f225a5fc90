import math

import pytest

from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.spec.window import Window
from diffusion_policy.util.errors import UserError

ACTION = {"shape": [2]}


def test_parse_fills_in_modalities():
    meta = TaskSpec.parse(
        {
            "obs": {
                "b": {"shape": [3, 8, 8], "type": "rgb"},
                "a": {"shape": [4], "limits": [0, 5]},
                "c": {"shape": [2], "modality": "ENV"},
            },
            "action": ACTION,
        }
    )
    assert list(meta.obs) == ["b", "a", "c"]
    assert meta.keys_of("VISUAL") == ["b"]
    assert meta.keys_of("STATE") == ["a"]
    assert meta.keys_of("ENV") == ["c"]
    assert meta.action.modality == "ACTION"
    assert meta.obs["a"].limits == (0.0, 5.0)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "shape_meta.obs.x has no shape"),
        ({"shape": [2], "tpye": "rgb"}, "unknown key 'tpye'"),
        ({"shape": [2], "type": "depth"}, "type is 'depth'; use one of rgb, low_dim"),
        ({"shape": [2], "type": "rgb"}, r"needs \[3, H, W\]"),
        ({"shape": [4, 8, 8], "type": "rgb"}, r"needs \[3, H, W\]"),
        ({"shape": [2], "modality": "SOUND"}, "modality is 'SOUND'; .* STATE or ENV"),
        ({"shape": [2], "modality": "ACTION"}, "modality is 'ACTION'; .* STATE or ENV"),
        ({"shape": [2], "modality": "VISUAL"}, "modality is 'VISUAL'; .* STATE or ENV"),
        ({"shape": [3, 8, 8], "type": "rgb", "modality": "STATE"}, "modality is 'STATE'; .* VISU"),
        ({"shape": [2, 0]}, r"shape is \[2, 0\]; use a list of whole numbers from 1"),
        ({"shape": [2.5]}, r"shape is \[2\.5\]; use"),
        ({"shape": 2}, "shape is 2; use a list"),
        ({"shape": "2"}, "shape is '2'; use a list"),
        ([2], r"obs\.x is \[2\]; give it a shape"),
        ({"shape": [2], "limits": [5, 0]}, r"limits are \[5, 0\]; use \[low, high\]"),
        ({"shape": [2], "limits": [0, 1, 2]}, r"limits are \[0, 1, 2\]; use \[low, high\]"),
        ({"shape": [2], "limits": ["a", "b"]}, r"limits are \['a', 'b'\]; use"),
        ({"shape": [2], "limits": [0, math.inf]}, r"limits are \[0, inf\]; use"),
        ({"shape": [2], "limits": 5}, r"limits are 5; use \[low, high\]"),
    ],
)
def test_mistakes_are_named(entry, message):
    with pytest.raises(UserError, match=message):
        TaskSpec.parse({"obs": {"x": entry}, "action": ACTION})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"shape": [2], "modality": "STATE"}, "modality is 'STATE'; the action is ACTION"),
        ({"shape": [3, 8, 8], "type": "rgb"}, "type is 'rgb'; an action is low_dim"),
        ({"shape": [2, 3]}, r"shape is \[2, 3\]; an action is a vector"),
        ({"shape": []}, r"shape is \[\]; an action is a vector"),
    ],
)
def test_an_action_is_no_observation(entry, message):
    with pytest.raises(UserError, match=rf"shape_meta\.action\.{message}"):
        TaskSpec.parse({"obs": {}, "action": entry})


def test_both_parts_are_needed():
    with pytest.raises(UserError, match="no 'action'"):
        TaskSpec.parse({"obs": {}})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((-1, 1), (0,)), "obs_offsets"),
        (((0, -1, 0), (0,)), "obs_offsets"),
        (((-3, -1, 0), (0,), None, 2), "jitter is 2"),
        (((0,), (0,), None, 1), "jitter is 1"),
    ],
)
def test_impossible_windows_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Window(*arguments)
