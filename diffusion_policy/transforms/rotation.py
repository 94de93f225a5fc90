"""Rotations in the representations that a part of a vector may have.

===================  =======  ===================================================================
representation       numbers  they are
===================  =======  ===================================================================
``axis_angle``       3        axis times angle in radians; the angle is at most pi when computed
``rotation_6d``      6        the first two rows of the matrix (Zhou et al. 2019, 1812.07035)
``matrix``           9        row by row
``quaternion``       4        x, y, z, w; w >= 0 when computed
``quaternion_wxyz``  4        w, x, y, z; likewise
``euler_<axes>``     3        radians; ``XYZ`` turns about the axes of the body (R = Rx Ry Rz), and
                              ``xyz`` about those of the world (R = Rz Ry Rx), as in scipy
===================  =======  ===================================================================

Everything is computed in float64, for arrays of any leading shape.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

_NO_DIRECTION = 1e-12  # a vector this short has none


def convert_rotation(values: np.ndarray, source: str, target: str) -> np.ndarray:
    """(..., n) in ``source`` to float64 (..., m) in ``target``."""
    return matrix_to(rotation_matrix(values, source), target)


def rotation_matrix(values: np.ndarray, source: str) -> np.ndarray:
    """(..., n) in ``source`` to float64 matrices (..., 3, 3).

    Quaternions need not be normalized. Six numbers or a matrix need not be orthonormal: their first
    two rows are made so by Gram-Schmidt. Zeros are no rotation.
    """
    values = np.asarray(values, dtype=np.float64)
    leading = values.shape[:-1]
    if source in ("rotation_6d", "matrix"):
        return _orthonormal(values[..., :6].reshape(*leading, 2, 3))
    rows = values.reshape(-1, values.shape[-1])
    if source == "axis_angle":
        rotations = Rotation.from_rotvec(rows)
    elif source == "quaternion":
        rotations = Rotation.from_quat(_unit(rows, otherwise=np.array([0, 0, 0, 1.0])))
    elif source == "quaternion_wxyz":
        return rotation_matrix(np.roll(values, -1, axis=-1), "quaternion")
    else:
        rotations = Rotation.from_euler(_axes(source), rows)
    return rotations.as_matrix().reshape(*leading, 3, 3)


def matrix_to(matrix: np.ndarray, target: str) -> np.ndarray:
    """Rotation matrices (..., 3, 3) to float64 (..., m) in ``target``."""
    matrix = np.asarray(matrix, dtype=np.float64)
    leading = matrix.shape[:-2]
    if target in ("rotation_6d", "matrix"):
        n_rows = 2 if target == "rotation_6d" else 3
        return matrix[..., :n_rows, :].reshape(*leading, 3 * n_rows)
    rotations = Rotation.from_matrix(matrix.reshape(-1, 3, 3))
    if target == "axis_angle":
        rows = rotations.as_rotvec()
    elif target == "quaternion":
        rows = rotations.as_quat(canonical=True)
    elif target == "quaternion_wxyz":
        rows = np.roll(rotations.as_quat(canonical=True), 1, axis=-1)
    else:
        rows = rotations.as_euler(_axes(target))
    return rows.reshape(*leading, -1)


def _axes(representation: str) -> str:
    name, _, axes = representation.partition("_")
    if name != "euler" or not axes:
        raise ValueError(f"{representation!r} is no representation of a rotation")
    return axes


def _orthonormal(rows: np.ndarray) -> np.ndarray:
    """Matrices (..., 3, 3) whose first two rows span what ``rows`` (..., 2, 3) span."""
    first = _unit(rows[..., 0, :], otherwise=np.array([1.0, 0, 0]))
    # The coordinate axis that is furthest from the first row.
    spare = np.eye(3)[np.abs(first).argmin(-1)]
    second = _unit(_rejection(rows[..., 1, :], first), otherwise=_rejection(spare, first))
    return np.stack([first, second, np.cross(first, second)], axis=-2)


def _rejection(vectors: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """What is left of vectors without their component along unit vectors."""
    return vectors - (vectors * axes).sum(-1, keepdims=True) * axes


def _unit(vectors: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Vectors of length 1; ``otherwise``, made so, where a vector has no direction.

    A network that has not learned yet may give zeros, and must not stop a rollout by NaN.
    """
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    directed = norms > _NO_DIRECTION
    vectors = np.where(directed, vectors, otherwise)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
