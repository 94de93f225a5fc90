"""Names, bounds and prompts."""

from __future__ import annotations

import numpy as np
import pytest

from diffusion_policy.spec.task_spec import TaskSpec
from diffusion_policy.transforms.clip import Clip
from diffusion_policy.transforms.keys import Rename, SelectKeys
from diffusion_policy.transforms.prompt import Prompt
from diffusion_policy.util.errors import UserError

SPEC = TaskSpec.parse(
    {
        "obs": {"position": {"shape": [2]}, "task": {"type": "text"}},
        "action": {"shape": [2], "limits": [-9, 9]},
    }
)
BATCH = {
    "obs": {"position": np.zeros((2, 1, 2), np.float32), "task": ["lift", "pour"]},
    "action": np.float32([[[-5, 0.5]], [[5, 0.25]]]),
}


def test_names_change_and_their_order_does_not():
    transform = Rename({"position": "state"})
    assert list(transform.spec(SPEC).obs) == ["state", "task"]
    assert transform.forward(BATCH, SPEC)["obs"]["state"] is BATCH["obs"]["position"]


def test_selected_keys_come_in_the_order_of_the_selection():
    transform = SelectKeys(["task", "position"])
    assert list(transform.spec(SPEC).obs) == ["task", "position"]
    assert list(SelectKeys(["task"]).forward(BATCH, SPEC)["obs"]) == ["task"]


def test_recorded_and_predicted_actions_are_clipped():
    transform = Clip("action", (-1, 0), (1, 0.25))
    expected = [[[-1, 0.25]], [[1, 0.25]]]
    np.testing.assert_array_equal(transform.forward(BATCH, SPEC)["action"], expected)
    np.testing.assert_array_equal(transform.inverse(BATCH["action"], {}, SPEC), expected)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (Prompt("Push the T."), ["Push the T."] * 2),
        (Prompt("Robot, {task}!", key="task"), ["Robot, lift!", "Robot, pour!"]),
    ],
)
def test_a_prompt_is_fixed_or_made_from_texts(prompt, expected):
    assert prompt.forward(BATCH, SPEC)["obs"][prompt.key] == expected
    assert prompt.spec(SPEC).obs[prompt.key].type == "text"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rename({"pose": "state"}), "asks for 'pose', which is not there"),
        (lambda: Rename({"position": "task"}), "Rename.names gives a name that is taken"),
        (lambda: Rename({"position": "action"}), "Rename.names gives a name that is taken"),
        (lambda: SelectKeys(["action"]), "names the action where only observations"),
        (lambda: Clip("action", 1, -1), "Clip of 'action' has low 1 above high -1"),
        (lambda: Clip("action", (0, 0, 0), 1), r"Clip.low of 'action' is \(0, 0, 0\); use one num"),
        (lambda: Clip("task", 0, 1), "parts of 'task', a text of shape"),
        (lambda: Prompt("{goal}"), "asks for the text observation 'goal', of which there are task"),
        (lambda: Prompt("go", key="position"), "Prompt.key is 'position', which is no text"),
    ],
)
def test_what_does_not_fit_is_named(make, message):
    with pytest.raises(UserError, match=message):
        make().spec(SPEC)
