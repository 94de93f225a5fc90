import math

import hydra
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
        ({"shape": [2], "type": "sound"}, "type is 'sound'; use one of rgb, depth, low_dim, text"),
        ({"shape": [2, 4, 4], "type": "depth"}, r"needs \[1, H, W\] or \[H, W\]"),
        ({"shape": [3], "type": "text"}, r"shape is \[3\]; leave it out"),
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
        ({"shape": [3], "limits": [[0, 1], [0, 2]]}, r"limits are 2 pairs for 3 numbers"),
        ({"shape": [2], "limits": [[0, 1], [2, 0]]}, r"limits are \[\[0, 1\], \[2, 0\]\]; use"),
    ],
)
def test_mistakes_are_named(entry, message):
    with pytest.raises(UserError, match=message):
        TaskSpec.parse({"obs": {"x": entry}, "action": ACTION})


def test_an_observation_cannot_go_by_the_name_of_the_action():
    with pytest.raises(UserError, match="another name"):
        TaskSpec.parse({"obs": {"action": {"shape": [2]}}, "action": {"shape": [2]}})


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


POSE = {
    "shape": [10],
    "parts": [
        {"name": "position", "size": 3, "representation": "position", "limits": [0, 1]},
        {"name": "rotation", "size": 6, "representation": "rotation_6d"},
        {"name": "gripper", "size": 1, "representation": "gripper"},
    ],
}


def test_a_vector_has_parts_with_modes_of_their_own():
    action = TaskSpec.parse({"obs": {}, "action": POSE}).action
    parts = action.normalized_parts({"ACTION": "MEAN_STD"})
    assert [part.normalization for part in parts] == ["MEAN_STD", "IDENTITY", "IDENTITY"]
    assert parts[0].limits == (0, 1)
    gripper = {"name": "gripper", "size": 1, "representation": "gripper", "limits": [0, 0.04]}
    entry = {"shape": [1], "parts": [gripper]}
    (part,) = TaskSpec.parse({"obs": {"x": entry}, "action": ACTION}).obs["x"].normalized_parts({})
    assert part.normalization == "MIN_MAX"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 2}, r"parts have 9 numbers but its shape is \[10\]"),
        ({"size": 0}, r"parts\[0\]\.size is 0; use a whole number from 1"),
        ({"size": None}, r"size is None; use a whole number"),
        ({"name": "gripper"}, "parts are called .* give each a name of its own"),
        ({"name": 3}, r"name is 3; use a word"),
        ({"representation": "euler"}, "representation is 'euler'; use one of raw"),
        ({"representation": "quaternion"}, r"size is 3; quaternion has 4 numbers"),
        ({"normalization": "ZSCORE"}, "normalization is 'ZSCORE'; use one of MIN_MAX"),
        ({"limits": [1, 0]}, r"parts\[0\]\.limits are \[1, 0\]"),
        ({"length": 3}, r"parts\[0\] has unknown key 'length'; known are name, size"),
    ],
)
def test_mistakes_in_parts_are_named(change, message):
    entry = {**POSE, "parts": [{**POSE["parts"][0], **change}, *POSE["parts"][1:]]}
    with pytest.raises(UserError, match=message):
        TaskSpec.parse({"obs": {}, "action": entry})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**POSE, "limits": [0, 1]}, "action has limits and parts"),
        ({"shape": [2], "parts": "all"}, "parts is 'all'; use a list"),
        ({"shape": [2], "parts": ["all"]}, r"parts is \['all'\]; use a list"),
    ],
)
def test_impossible_parts_are_refused(entry, message):
    with pytest.raises(UserError, match=message):
        TaskSpec.parse({"obs": {}, "action": entry})


def test_a_spec_survives_hydra():
    pose = {"shape": [3], "limits": [[0, 1], [0, 2], [-1, 1]]}
    spec = TaskSpec.parse({"obs": {"pose": pose}, "action": POSE}, fps=10)
    config = {"_target_": "builtins.dict"}
    for convert in ("none", "all", "object"):
        given = hydra.utils.instantiate(config, spec=spec, _convert_=convert)["spec"]
        assert TaskSpec.parse(given) == spec


def test_depth_and_text():
    obs = {"depth": {"shape": [4, 6], "type": "depth"}, "task": {"type": "text"}}
    meta = TaskSpec.parse({"obs": obs, "action": ACTION})
    assert meta.obs["depth"].shape == (1, 4, 6)
    assert meta.obs["task"].shape == ()
    assert [field.modality for field in meta.obs.values()] == ["DEPTH", "TEXT"]


def test_real_robot_entries_of_the_ancestor_parse():
    config = {
        "obs": {
            "camera0_rgb": {
                "shape": [3, 224, 224],
                "horizon": 2,
                "latency_steps": 0,
                "type": "rgb",
            },
            "robot0_eef_rot_axis_angle": {
                "raw_shape": [3],
                "shape": [6],
                "rotation_rep": "rotation_6d",
                "down_sample_steps": 3,
                "type": "low_dim",
            },
        },
        "action": {"shape": [10], "horizon": 16, "rotation_rep": "rotation_6d"},
    }
    with pytest.warns(UserWarning, match="has no effect here") as warned:
        meta = TaskSpec.parse(config)
    assert "camera0_rgb: horizon, latency_steps has" in str(warned[0].message)
    assert len(warned) == 3
    (part,) = meta.obs["robot0_eef_rot_axis_angle"].parts
    assert (part.representation, part.size) == ("rotation_6d", 6)
    assert meta.action.parts == ()


def test_a_parsed_spec_passes_through_and_takes_what_is_given():
    meta = TaskSpec.parse({"obs": {}, "action": ACTION}, fps=10, embodiment="pusht")
    assert TaskSpec.parse(meta) == meta
    assert TaskSpec.parse(meta, fps=30).fps == 30
    assert TaskSpec.parse(meta, fps=30).embodiment == "pusht"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fps": 0}, "task.fps is 0; use"),
        ({"fps": "fast"}, "task.fps is 'fast'; use"),
        ({"embodiment": "so.101"}, "task.embodiment is 'so.101'; use letters"),
    ],
)
def test_impossible_descriptions_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        TaskSpec.parse({"obs": {}, "action": ACTION}, **given)


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
