from __future__ import annotations

import numpy as np
import pytest

from diffusion_policy.inspection.checks import CHECKS, findings
from diffusion_policy.inspection.recording import Recording
from tests.inspection.recordings import LENGTHS, good_arrays, store_of

START = np.cumsum((0, *LENGTHS))  # of each episode


def found(arrays, **more) -> list[tuple[str, str]]:
    return [(one.check, one.message) for one in findings(Recording(store_of(arrays, **more)))]


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return good_arrays()


def test_nothing_is_found_in_a_good_recording(arrays):
    assert found(arrays) == []


def nan(arrays):
    arrays["state"][START[2] + 4, 1] = np.nan


def jump(arrays):
    arrays["state"][START[1] + 7, 0] += 30


def turn(arrays):
    arrays["state"][START[1] + 7 : START[2], 0] += 2 * np.pi


def dead(arrays):
    arrays["state"][:, 1] = 3


def swap(arrays):
    rows = slice(START[3], START[4])
    arrays["front"][rows], arrays["wrist"][rows] = (
        arrays["wrist"][rows].copy(),
        arrays["front"][rows].copy(),
    )


def frozen(arrays):
    arrays["wrist"][START[4] :] = arrays["wrist"][START[4]]


def black(arrays):
    arrays["front"][: START[1]] = 0


def gap(arrays):
    arrays["timestamp"][START[1] + 20 : START[2]] += 0.5


def back(arrays):
    arrays["timestamp"][START[1] + 20 : START[2]] -= 0.5


def degrees(arrays):
    arrays["action"] *= 180 / np.pi


def pause(arrays):
    for key in ("state", "action"):
        own = arrays[key][START[3] : START[4]]
        own[:] = np.concatenate([own[:10], np.repeat(own[10:11], 35, axis=0), own[10:25]])


def twice(arrays):
    rows = slice(START[0], START[1])
    for key, values in arrays.items():
        arrays[key] = np.concatenate([values, values[rows]])


SPOILT = {
    nan: ("not finite", "state is not finite at episode 2 step 4"),
    jump: ("jumps", "state[0] jumps by up to 30"),
    turn: ("jumps", "step 7; perhaps an angle that starts again after a whole turn"),
    dead: ("constant", "state[1] is always 3"),
    swap: ("swapped cameras", "front and wrist seem swapped in episode 3"),
    frozen: ("still cameras", "wrist does not change in episode 4"),
    black: ("still cameras", "front shows one colour in episode 0"),
    gap: ("gaps", "timestamp is not 0.1 s after the step before at episode 1 step 20"),
    back: ("gaps", "timestamp is not 0.1 s after the step before at episode 1 step 20"),
    degrees: ("other units", "action[0, 1] is about 57.7 times state, which it follows (degrees"),
    pause: (
        "pauses",
        "nothing moves for 20 steps or more in episode 3; longest in episode 3 from step 10, 35",
    ),
}


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_one_thing_that_is_wrong_is_found_alone(arrays, spoil):
    spoil(arrays)
    check, message = SPOILT[spoil]
    ((name, text),) = found(arrays)
    assert name == check
    assert message in text


def test_an_episode_that_is_there_twice_is_found(arrays):
    twice(arrays)
    lengths = (*LENGTHS, LENGTHS[0])
    assert found(arrays, lengths=lengths) == [
        ("duplicates", "the same vectors are in episodes 0, 5")
    ]


def test_an_episode_that_was_broken_off_is_found():
    lengths = (*LENGTHS, 4)
    ((name, text),) = found(good_arrays(lengths), lengths=lengths)
    assert (name, text) == ("short episodes", "there are 4 steps or fewer in episode 5")


def test_a_missing_or_badly_spelt_task_is_found(arrays):
    assert found(arrays, tasks=["swing", "swing", None, "swing", "swing"]) == [
        ("tasks", "there is no task text in episode 2")
    ]
    assert found(arrays, tasks=["swing", "Swing ", "swing", "swing", "swing"]) == [
        ("tasks", "some task texts differ in capitals or spaces alone")
    ]


def test_every_check_is_tried():
    tried = {name for name, _ in SPOILT.values()}
    assert tried | {"duplicates", "short episodes", "tasks"} == CHECKS.keys()


def test_a_gripper_that_opens_and_closes_does_not_jump(arrays):
    gripper = (np.arange(sum(LENGTHS)) // 13 % 2).astype(np.float32)[:, None]
    assert found({**arrays, "gripper": gripper}) == []


def test_messages_name_a_few_places_and_count_the_rest(arrays):
    arrays["state"][10:20] = np.nan
    ((_, text), *_) = found(arrays)
    assert text.endswith("episode 0 step 14 and 5 more")


def test_episodes_of_one_step_are_no_trouble():
    lengths = (1, 1, 1)
    findings(Recording(store_of(good_arrays(lengths), lengths)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38])
def test_odd_numbers_are_found_without_a_warning(arrays, value):
    arrays["state"][5:9] = value
    arrays["action"][::2] = -value
    checks = {check for check, _ in found(arrays)}
    assert ("not finite" in checks) == (not np.isfinite(value))
