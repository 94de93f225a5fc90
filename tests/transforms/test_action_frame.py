from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.transforms.action_frame import PoseFrame, VectorFrame
from diffusion_policy.util.errors import UserError

SPEC = TaskSpec.parse(
    {
        "obs": {
            "joints": {"shape": [2]},
            "eef_pos": {"shape": [3]},
            "eef_quat": {"shape": [4], "rotation_rep": "quaternion"},
        },
        "action": {
            "shape": [9],
            "parts": [
                {"name": "joints", "size": 2, "limits": [-3, 3]},
                {"name": "gripper", "size": 1},
                {"name": "rotation", "size": 3, "representation": "axis_angle"},
                {"name": "position", "size": 3, "limits": [0, 1]},
            ],
        },
    }
)
NOW, THEN = 1, 2  # rows of the current observation, and of one that only training sees
ACTIONS_NOW = 2
joints = np.float32([[[9, 9], [1, 2], [9, 9]]])
commands = np.float32([[[0, 0], [1, 1], [2, 4], [3, 4]]])


def batch(**action):
    """One sample: two actions of the past, two from now on."""
    full = np.zeros((1, 4, 9), np.float32)
    full[..., 2] = 7  # the gripper
    full[..., :2] = action.get("joints", 0)
    full[..., 3:6] = action.get("rotation", 0)
    full[..., 6:] = action.get("position", 0)
    obs = {"joints": joints}
    return {"obs": obs, "action": full, "obs_now": NOW, "action_now": ACTIONS_NOW}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("relative", [[-1, -2], [0, -1], [1, 2], [2, 2]]),
        # 0,0 -> 1,1 -> now at 1,2 -> 2,4 -> 3,4
        ("delta", [[1, 1], [0, 1], [1, 2], [1, 0]]),
        ("absolute", commands[0]),
    ],
)
def test_vectors_are_subtracted(target, expected):
    transform = VectorFrame(part="joints", now="joints", target=target)
    action = transform.forward(batch(joints=commands), SPEC)["action"]
    np.testing.assert_array_equal(action[0, :, :2], expected)
    np.testing.assert_array_equal(action[..., 2], 7)
    assert transform.spec(SPEC).action.parts[0].limits is None


def test_recorded_deltas_become_absolute():
    transform = VectorFrame(part="joints", now="joints", source="delta", target="absolute")
    deltas = batch(joints=np.float32([[[1, 1], [0, 1], [1, 2], [1, 0]]]))
    action = transform.forward(deltas, SPEC)["action"]
    np.testing.assert_array_equal(action[..., :2], commands)


@pytest.fixture
def turned():
    """The hand is at (1, 0, 0), turned a quarter to the left; the commands lie ahead of it."""
    quarter = Rotation.from_euler("z", 90, degrees=True)
    sample = batch(
        position=[[[1, 0, 0], [1, 1, 0], [1, 2, 0], [0, 2, 0]]],
        rotation=[quarter.as_rotvec(), quarter.as_rotvec(), (quarter**2).as_rotvec(), [0, 0, 0]],
    )
    sample["obs"] = {
        "eef_pos": np.float32([[[5, 5, 5], [1, 0, 0], [5, 5, 5]]]),
        "eef_quat": np.tile(quarter.as_quat().astype(np.float32), (1, 3, 1)),
    }
    return sample


QUARTER = np.pi / 2


@pytest.mark.parametrize(
    ("target", "positions", "turns"),
    [
        # Ahead is y in the room, and x for the hand.
        ("relative", [[0, 0, 0], [1, 0, 0], [2, 0, 0], [2, 1, 0]], [0, 0, QUARTER, -QUARTER]),
        # (1, 0) -> (1, 1) -> now (1, 0) -> (1, 2) -> (0, 2), the last seen from a hand turned twice
        ("delta", [[1, 0, 0], [-1, 0, 0], [2, 0, 0], [1, 0, 0]], [0, 0, QUARTER, -2 * QUARTER]),
    ],
)
def test_poses_are_seen_from_the_hand(turned, target, positions, turns):
    transform = PoseFrame(now_position="eef_pos", now_rotation="eef_quat", target=target)
    action = transform.forward(turned, SPEC)["action"][0]
    np.testing.assert_allclose(action[:, 6:], positions, atol=1e-6)
    np.testing.assert_allclose(np.abs(action[:, 5]), np.abs(turns), atol=1e-6)
    np.testing.assert_allclose(action[:3, 5], turns[:3], atol=1e-6)
    np.testing.assert_allclose(action[:, 3:5], 0, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VectorFrame(now="joints", target="world"), "VectorFrame.target is 'world'; use o"),
        (lambda: VectorFrame(now="joints", part="gripper"), "gives 2 numbers for part 'gripper'"),
        (lambda: VectorFrame(now="state", part="joints"), "asks for 'state', which is not there"),
        (
            lambda: PoseFrame(position="joints", now_position="joints", now_rotation="eef_quat"),
            "'joints' of the action has 2 numbers",
        ),
        (
            lambda: PoseFrame(now_position="eef_pos", now_rotation="eef_pos"),
            "part None of 'eef_pos' is 'raw'; PoseFrame needs a rotation",
        ),
    ],
)
def test_what_does_not_fit_is_named(make, message):
    with pytest.raises(UserError, match=message):
        make().spec(SPEC)
