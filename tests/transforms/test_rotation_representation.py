from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.transforms.pipeline import Pipeline
from diffusion_policy.transforms.rotation_representation import RotationRepresentation
from diffusion_policy.util.errors import UserError

# Absolute actions of robomimic, converted as the original diffusion_policy does.
GOLDEN = Path(__file__).parents[1] / "golden" / "rotation" / "robomimic_abs_action.npz"


def arms(count):
    parts = []
    for i in range(count):
        parts += [
            {"name": f"position{i}", "size": 3, "representation": "position", "limits": [-1, 1]},
            {"name": f"rotation{i}", "size": 3, "representation": "axis_angle", "limits": [-9, 9]},
            {"name": f"gripper{i}", "size": 1, "representation": "gripper"},
        ]
    return TaskSpec.parse({"obs": {}, "action": {"shape": [7 * count], "parts": parts}})


@pytest.fixture(params=[("single", 1), ("dual", 2)], ids=["single", "dual"])
def golden(request):
    name, n_arms = request.param
    transforms = [RotationRepresentation("action", f"rotation{i}") for i in range(n_arms)]
    with np.load(GOLDEN) as file:
        arrays = {key.removeprefix(f"{name}_"): file[key] for key in file if key.startswith(name)}
    return Pipeline.of(transforms, arms(n_arms)), arrays


def test_robomimic_actions_become_the_golden_ones(golden):
    pipeline, arrays = golden
    found = pipeline.forward({"obs": {}, "action": arrays["raw"][None]})["action"][0]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, arrays["converted"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("given", "expected"), [("converted", "undone"), ("noisy_prediction", "noisy_undone")]
)
def test_and_predictions_become_robomimic_actions(golden, given, expected):
    pipeline, arrays = golden
    expected = arrays[expected]
    given = arrays[given].reshape(*expected.shape[:2], -1)
    found = pipeline.inverse(given, pipeline.observe({}))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


def test_the_spec_tells_what_became_of_the_parts():
    spec = RotationRepresentation("action", "rotation0").spec(arms(1))
    assert spec.action.shape == (10,)
    position, rotation, gripper = spec.action.parts
    assert (position, gripper) == (arms(1).action.parts[0], arms(1).action.parts[2])
    assert (rotation.size, rotation.representation, rotation.limits) == (6, "rotation_6d", None)
    modes = [part.normalization for part in spec.action.normalized_parts({})]
    assert modes == ["MIN_MAX", "IDENTITY", "IDENTITY"]


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (RotationRepresentation("action"), "names no part of 'action'; name one of position0, ro"),
        (RotationRepresentation("action", "grip"), "part 'grip' of 'action', which has none; name"),
        (RotationRepresentation("action", "position0"), "'action' is 'position', no represent"),
        (RotationRepresentation("action", "rotation0", "euler"), "target of 'action' is 'euler'"),
        (RotationRepresentation("pose"), "asks for 'pose', which is not there; name one of action"),
    ],
)
def test_what_does_not_fit_is_named(transform, message):
    with pytest.raises(UserError, match=message):
        transform.spec(arms(1))
