from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from diffusion_policy.spec.task_spec import ROTATIONS
from diffusion_policy.transforms.rotation import convert_rotation, rotation_matrix

# 200 rotations, converted by pytorch3d as the original diffusion_policy does.
GOLDEN = Path(__file__).parents[1] / "golden" / "rotation" / "rotation.npz"
ORDINARY = slice(0, 80)
CERTAIN = slice(0, 140)  # behind them, an axis may point either way, or an angle is free


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {name: file[name] for name in file}


def angles_between(left, right, representation):
    """Of the rotations from one to the other, in radians."""
    left, right = (Rotation.from_matrix(rotation_matrix(x, representation)) for x in (left, right))
    return (left.inv() * right).magnitude()


def flat(matrices):
    return matrices.reshape(*matrices.shape[:-2], 9)


def assert_close(found, expected, tolerance=1e-9):
    np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0)


def test_matrices_and_their_first_two_rows(golden):
    assert_close(rotation_matrix(golden["axis_angle"], "axis_angle"), golden["matrix"])
    found = convert_rotation(golden["axis_angle"], "axis_angle", "rotation_6d")
    assert_close(found, golden["rotation_6d"])


@pytest.mark.parametrize("version", ["", "_pytorch3d_0_7_0"])
def test_quaternions(golden, version):
    expected = golden[f"quaternion_wxyz{version}"]
    found = convert_rotation(golden["axis_angle"], "axis_angle", "quaternion_wxyz")
    assert (found[:, 0] >= 0).all()
    same_sign = np.sign((found * expected).sum(-1, keepdims=True))  # q and -q are one rotation
    assert_close(found, same_sign * expected)
    scalar_last = convert_rotation(golden["axis_angle"], "axis_angle", "quaternion")
    assert_close(scalar_last, found[:, [1, 2, 3, 0]], 0)


def test_axis_angles(golden):
    found = convert_rotation(golden["rotation_6d"], "rotation_6d", "axis_angle")
    assert_close(found[CERTAIN], golden["axis_angle_from_6d"][CERTAIN])
    for name in ("axis_angle_from_6d", "axis_angle_from_6d_pytorch3d_0_7_0"):
        assert angles_between(found, golden[name], "axis_angle").max() < 1e-7
    assert np.linalg.norm(found, axis=-1).max() <= np.pi + 1e-9


def test_single_precision(golden):
    axis_angle = golden["axis_angle"].astype(np.float32)
    found = convert_rotation(axis_angle, "axis_angle", "rotation_6d")
    assert_close(found, golden["rotation_6d_f32"], 1e-6)
    back = convert_rotation(golden["rotation_6d_f32"], "rotation_6d", "axis_angle")
    expected = golden["axis_angle_from_6d_f32"]
    assert_close(back[CERTAIN], expected[CERTAIN], 1e-6)
    assert angles_between(back, expected, "axis_angle").max() < 1e-6


@pytest.mark.filterwarnings("ignore:Gimbal lock detected")
@pytest.mark.parametrize("axes", ["XYZ", "ZYX", "XYX"])
def test_euler_angles(golden, axes):
    angles, matrices = golden[f"euler_{axes}"], golden[f"matrix_from_euler_{axes}"]
    assert_close(rotation_matrix(angles, f"euler_{axes}"), matrices)
    found = convert_rotation(flat(matrices), "matrix", f"euler_{axes}")
    assert_close(found[ORDINARY], angles[ORDINARY])
    assert angles_between(found, angles, f"euler_{axes}").max() < 1e-7


def test_numbers_that_are_not_quite_a_rotation(golden):
    found = rotation_matrix(golden["raw_quaternion"], "quaternion_wxyz")
    assert_close(found, golden["matrix_from_raw_quaternion"])
    found = rotation_matrix(golden["noisy_6d"], "rotation_6d")
    assert_close(found, golden["matrix_from_noisy_6d"])
    found = convert_rotation(golden["noisy_6d"], "rotation_6d", "axis_angle")
    assert_close(found, golden["axis_angle_from_noisy_6d"])


@pytest.mark.parametrize("representation", ROTATIONS)
def test_zeros_are_no_rotation(representation):
    matrix = rotation_matrix(np.zeros((2, 3, ROTATIONS[representation])), representation)
    assert_close(matrix, np.broadcast_to(np.eye(3), (2, 3, 3, 3)))


def test_parallel_rows_are_some_rotation():
    matrix = rotation_matrix([2, 2, 2, 3, 3, 3], "rotation_6d")
    assert_close(matrix @ matrix.T, np.eye(3))
    assert_close(matrix[0], np.full(3, 3**-0.5))


def test_an_unknown_representation_is_named():
    with pytest.raises(ValueError, match="'axis' is no representation"):
        convert_rotation(np.zeros(3), "axis", "matrix")
