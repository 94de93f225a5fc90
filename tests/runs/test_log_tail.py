import json

import pytest

from diffusion_policy.runs.log_tail import LogTail
from diffusion_policy.util.json_logger import JsonLogger

KEY = "test/mean_score"


def scores(tail):
    tail.refresh()
    return [record[KEY] for record in tail.records]


def write(path, *values, mode="a"):
    with path.open(mode) as file:
        file.writelines(
            json.dumps({"step": 0}) + "\n" + json.dumps({KEY: v}) + "\n" for v in values
        )


@pytest.fixture
def tail(tmp_path):
    return LogTail(tmp_path / "logs.json.txt", [KEY])


def test_each_line_is_read_once(tail, monkeypatch):
    assert scores(tail) == []
    write(tail.path, 1, 2)
    assert scores(tail) == [1, 2]
    parsed = []
    monkeypatch.setattr(
        "diffusion_policy.runs.log_tail.parse_line",
        lambda line: parsed.append(line) or json.loads(line),
    )
    write(tail.path, 3)
    assert scores(tail) == [1, 2, 3]
    assert set(parsed) == {b'{"test/mean_score": 3}\n'}


def test_a_line_without_end_waits_for_it(tail):
    write(tail.path, 1)
    with tail.path.open("a") as file:
        file.write('{"test/mean_sc')
    assert scores(tail) == [1]
    with tail.path.open("a") as file:
        file.write('ore": 2}\n')
    assert scores(tail) == [1, 2]


def test_a_line_torn_by_a_crash_is_passed_over(tail):
    tail.path.write_bytes(b'{"test/mean_score": 1}\n{"test/mean_score": \x00\xff\n')
    write(tail.path, 3)
    assert scores(tail) == [1, 3]


@pytest.mark.parametrize("later", [[], [7], [7, 8, 9, 10]])
def test_a_log_replaced_by_a_resumed_run_is_read_anew(tail, later):
    write(tail.path, 1, 2, 3)
    assert scores(tail) == [1, 2, 3]
    with JsonLogger(tail.path, keep=2) as logger:  # keeps the records of score 1
        for value in later:
            logger.log({KEY: value})
    assert scores(tail) == [1, *later]


@pytest.mark.parametrize("values", [[4], [4, 5, 6]])
def test_a_log_overwritten_in_place_is_read_anew(tail, values):
    write(tail.path, 1, 2)
    assert scores(tail) == [1, 2]
    write(tail.path, *values, mode="w")
    assert scores(tail) == values


def test_a_log_that_is_gone_leaves_nothing(tail):
    write(tail.path, 1)
    assert scores(tail) == [1]
    tail.path.unlink()
    assert scores(tail) == []
    assert tail.last is None


def test_the_last_record_is_known_whatever_it_holds(tail):
    write(tail.path, 1)
    with tail.path.open("a") as file:
        file.write('{"epoch": 5}\n{"epoch": 6')
    tail.refresh()
    assert tail.last == {"epoch": 5}
