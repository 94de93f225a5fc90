"""What every transform promises. A new one joins by an entry in CASES."""

from __future__ import annotations

import copy
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_transform import Centimetres

from diffusion_policy.env.pusht.mirror import Mirror
from diffusion_policy.spec.task_spec import ROTATIONS, TaskSpec
from diffusion_policy.transforms.action_frame import PoseFrame, VectorFrame
from diffusion_policy.transforms.clip import Clip
from diffusion_policy.transforms.images import CenterCrop, Resize
from diffusion_policy.transforms.keys import Rename, SelectKeys
from diffusion_policy.transforms.pipeline import Pipeline
from diffusion_policy.transforms.prompt import Prompt
from diffusion_policy.transforms.rotation import rotation_matrix
from diffusion_policy.transforms.rotation_representation import RotationRepresentation


def pose(rotation):
    return [
        {"name": "position", "size": 3, "representation": "position"},
        {"name": "rotation", "size": ROTATIONS[rotation], "representation": rotation},
    ]


def arm(action_rotation="axis_angle", pose_rotation="quaternion"):
    """A robot arm: pose and gripper, cameras, joints and an instruction."""
    gripper = {"name": "gripper", "size": 1, "representation": "gripper"}
    return TaskSpec.parse(
        {
            "obs": {
                "pose": {"shape": [3 + ROTATIONS[pose_rotation]], "parts": pose(pose_rotation)},
                "position": {"shape": [3]},
                "wrist": {"shape": [3, 12, 16], "type": "rgb"},
                "depth": {"shape": [12, 16], "type": "depth"},
                "task": {"type": "text"},
            },
            "action": {
                "shape": [4 + ROTATIONS[action_rotation]],
                "parts": [*pose(action_rotation), gripper],
            },
        }
    )


JOINTS = TaskSpec.parse(
    {"obs": {"joints": {"shape": [5], "limits": [-3, 3]}}, "action": {"shape": [5]}}
)
IMAGES = TaskSpec.parse(
    {"obs": {"image": {"shape": [3, 8, 8], "type": "rgb"}}, "action": {"shape": [2]}}
)
PUSHT = TaskSpec.parse(
    {
        "obs": {"agent_pos": {"shape": [2]}, "image": {"shape": [3, 8, 8], "type": "rgb"}},
        "action": {"shape": [2], "limits": [0, 512]},
    }
)
OF_POSE = {
    "now_position": {"key": "pose", "part": "position"},
    "now_rotation": {"key": "pose", "part": "rotation"},
}
CASES = {
    "toy": (Centimetres("position"), arm()),
    "Rename": (Rename({"wrist": "camera"}), arm()),
    "SelectKeys": (SelectKeys(("depth", "task")), arm()),
    "Resize smaller": (Resize(6, 8), arm()),
    "Resize larger": (Resize(20, 18, keys=("wrist",)), arm()),
    "CenterCrop": (CenterCrop(7, 16), arm()),
    "Clip vector": (Clip("action", -3.0, 3.0), JOINTS),
    "Clip part": (Clip("action", (-3.0,) * 3, (3.0,) * 3, part="position"), arm()),
    "Clip observation": (Clip("joints", -1.0, 1.0), JOINTS),
    "Prompt": (Prompt("Please {task}."), arm()),
    "Prompt alone": (Prompt("Push."), IMAGES),
    "Mirror": (Mirror(), PUSHT),
    "joints": (VectorFrame(now="joints", target="delta"), JOINTS),
    "of an observation": (RotationRepresentation("pose", "rotation"), arm()),
    **{
        f"{source} as {target}": (
            RotationRepresentation("action", "rotation", target),
            arm(action_rotation=source),
        )
        for one in ROTATIONS
        for source, target in ((one, "rotation_6d"), ("axis_angle", one))
    },
    **{
        f"pose {source} to {target}": (
            PoseFrame(source=source, target=target, **OF_POSE),
            arm("rotation_6d", "axis_angle"),
        )
        for source in ("absolute", "delta")
        for target in ("absolute", "relative", "delta")
    },
}


def random_batch(spec, seed, *, acting=False):
    """Two rows; to train, with a past action and a future observation."""
    rng = np.random.default_rng(seed)
    future = 0 if acting else 1
    batch = {
        "obs": {key: random_values(field, rng, 2 + future) for key, field in spec.obs.items()},
        "action": random_values(spec.action, rng, 4 + future),
    }
    if not acting:
        batch |= {"action_is_pad": np.zeros((2, 5), bool), "obs_now": 1, "action_now": 1}
    return batch


def random_values(field, rng, steps):
    if field.type == "text":
        return [str(word) for word in rng.choice(["push", "pull"], 2)]
    if field.type == "rgb":
        return rng.integers(0, 256, (2, steps, *field.shape), dtype=np.uint8)
    # Rotations stay below half a turn, where each has one vector.
    low, high = field.limits or (-1, 1)
    return rng.uniform(low, high, (2, steps, *field.shape)).astype(np.float32)


def with_proper_rotations(pipeline, action):
    """Rotations as matrices: six numbers, and q and -q, tell one rotation in several ways."""
    field, pieces, start = pipeline.raw_spec.action, [], 0
    for part in field.parts:
        numbers = action[..., start : start + part.size]
        if part.representation in ROTATIONS:
            numbers = rotation_matrix(numbers, part.representation).reshape(*numbers.shape[:-1], 9)
        pieces.append(numbers)
        start += part.size
    return np.concatenate(pieces, -1) if pieces else action


@pytest.fixture(params=CASES, scope="module")
def pipeline(request):
    transform, spec = CASES[request.param]
    return Pipeline.of([transform], spec)


def assert_equal(left, right):
    assert left.keys() == right.keys()
    for key, value in left.items():
        if isinstance(value, dict):
            assert_equal(value, right[key])
        elif isinstance(value, np.ndarray):
            assert value.dtype == right[key].dtype
            np.testing.assert_array_equal(value, right[key])
        else:
            assert value == right[key]


def test_forward_gives_what_spec_tells(pipeline):
    batch = pipeline.forward(random_batch(pipeline.raw_spec, 0))
    assert list(batch["obs"]) == list(pipeline.spec.obs)
    for key, field in pipeline.spec.fields.items():
        values = batch["action"] if key == "action" else batch["obs"][key]
        if field.type == "text":
            assert len(values) == 2
            assert all(isinstance(text, str) for text in values)
        else:
            assert values.shape == (2, 5 if key == "action" else 3, *field.shape)
            assert values.dtype == (np.uint8 if field.type == "rgb" else np.float32)
    again = TaskSpec.parse(pipeline.spec)
    assert again == pipeline.spec
    for field in pipeline.spec.fields.values():
        assert not field.parts or sum(part.size for part in field.parts) == field.size


@pytest.mark.parametrize("acting", [False, True])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_inverse_undoes_forward(pipeline, acting, seed):
    batch = random_batch(pipeline.raw_spec, seed, acting=acting)
    transformed = pipeline.forward(batch)
    if not acting:  # acting begins with the current time step, and knows no later one
        batch = {"obs": present(batch["obs"]), "action": batch["action"][:, 1:]}
        transformed["action"] = transformed["action"][:, 1:]
    undone = pipeline.inverse(transformed["action"], pipeline.observe(batch["obs"]))
    assert undone.dtype == np.float32
    np.testing.assert_allclose(
        with_proper_rotations(pipeline, undone),
        with_proper_rotations(pipeline, batch["action"]),
        atol=3e-6 * max(1, np.abs(batch["action"]).max()),
    )


def present(obs):
    return {key: x if isinstance(x, list) else x[:, :2] for key, x in obs.items()}


def test_what_is_seen_in_acting_is_what_was_seen_in_training(pipeline):
    batch = random_batch(pipeline.raw_spec, 1)
    seen = pipeline.observe(present(batch["obs"]))[-1]
    assert_equal(seen, present(pipeline.forward(batch)["obs"]))


def test_nothing_is_written_into_what_is_given(pipeline):
    batch = random_batch(pipeline.raw_spec, 2, acting=True)
    before = copy.deepcopy(batch)
    transformed = pipeline.forward(batch)
    assert_equal(batch, before)
    seen = pipeline.observe(batch["obs"])
    action, seen_before = transformed["action"].copy(), copy.deepcopy(seen)
    pipeline.inverse(transformed["action"], seen)
    np.testing.assert_array_equal(transformed["action"], action)
    for obs, obs_before in zip(seen, seen_before, strict=True):
        assert_equal(obs, obs_before)


def test_statistics_are_fitted_without_images(pipeline):
    batch = random_batch(pipeline.raw_spec, 3)
    expected = pipeline.forward(batch)
    images = [key for key, field in pipeline.raw_spec.obs.items() if field.type == "rgb"]
    without = {key: value for key, value in batch["obs"].items() if key not in images}
    found = pipeline.forward({**batch, "obs": without})
    for key, value in found["obs"].items():
        np.testing.assert_array_equal(value, expected["obs"][key])
    np.testing.assert_array_equal(found["action"], expected["action"])
    assert all(
        field.type == "rgb" for key, field in pipeline.spec.obs.items() if key not in found["obs"]
    )


def test_rows_do_not_see_each_other(pipeline):
    batch = random_batch(pipeline.raw_spec, 4)
    one = {
        key: value[1:] if isinstance(value, np.ndarray) else value for key, value in batch.items()
    }
    one["obs"] = {key: value[1:] for key, value in batch["obs"].items()}
    both, alone = pipeline.forward(batch), pipeline.forward(one)
    np.testing.assert_allclose(alone["action"], both["action"][1:], atol=1e-6)
    for key, value in alone["obs"].items():
        if isinstance(value, list):
            assert value == both["obs"][key][1:]
        else:
            np.testing.assert_allclose(value, both["obs"][key][1:], atol=1e-6)


def test_a_transform_is_built_from_its_settings(pipeline):
    (transform,) = pipeline.transforms
    settings = asdict(transform)
    name = f"{type(transform).__module__}.{type(transform).__qualname__}"
    again = Pipeline.of([{"_target_": name, **settings}], pipeline.raw_spec)
    assert again == pipeline
