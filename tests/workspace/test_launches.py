import json

import pytest

from diffusion_policy.util.errors import UserError
from diffusion_policy.workspace.launches import LAUNCHES_FILE, Launches, read_launches

NO_LAST_STEP = '[{"command": "", "commit": "", "machine": "", "steps": 5, "seconds": 1}]'


def steps(folder):
    return [launch["steps"] for launch in read_launches(folder)]


def test_a_launch_grows_with_what_it_saves(tmp_path):
    launch = Launches(tmp_path, 0)
    assert not (tmp_path / LAUNCHES_FILE).exists()  # nothing has come of it
    launch.save(10)
    (first,) = read_launches(tmp_path)
    launch.save(20)
    (second,) = read_launches(tmp_path)
    assert (first.pop("steps"), second.pop("steps")) == ([0, 10], [0, 20])
    assert 0 <= first.pop("seconds") <= second.pop("seconds")
    assert first == second
    assert first["command"].startswith("python ")
    assert first["commit"]
    assert "cores" in first["machine"]


def test_a_run_that_goes_on_adds_a_launch(tmp_path):
    Launches(tmp_path, 0).save(20)
    going_on = Launches(tmp_path, 20)
    assert steps(tmp_path) == [[0, 20]]
    going_on.save(30)
    assert steps(tmp_path) == [[0, 20], [20, 30]]


def test_a_run_that_begins_anew_forgets_earlier_launches(tmp_path):
    Launches(tmp_path, 0).save(20)
    Launches(tmp_path, 0).save(5)
    assert steps(tmp_path) == [[0, 5]]


@pytest.mark.parametrize(
    "text",
    [
        *("[{", "{}", "[]", "[1]", NO_LAST_STEP, '[{"steps": [0, 5]}]', "\udcff", "[" * 100_000),
        *(NO_LAST_STEP.replace("5", steps) for steps in ("[5]", '["a", "b"]', "[0, 1.5]")),
    ],
)
def test_damaged_records_are_told(tmp_path, text):
    (tmp_path / LAUNCHES_FILE).write_text(text, errors="surrogateescape")
    with pytest.raises(UserError, match=r"launches\.json is damaged \(.*\); correct it, or"):
        Launches(tmp_path, 5)


def test_the_error_shows_what_to_write(tmp_path):
    with pytest.raises(UserError, match=r"holds no launches\.json") as caught:
        read_launches(tmp_path)
    example = json.loads(str(caught.value).partition("write it: ")[2])
    assert set(example[0]) == {"command", "commit", "machine", "steps", "seconds"}
