import json
import math

import numpy as np
import pytest

from diffusion_policy.runs.run_log import RunLog
from diffusion_policy.util.json_logger import JsonLogger
from tests.runs.fake_runs import lines

KEY = "test/mean_score"


def scores(log):
    log.refresh()
    return log.columns()[KEY].tolist()


def write(path, *values, mode="a"):
    with path.open(mode) as file:
        file.writelines(
            json.dumps({"step": 0}) + "\n" + json.dumps({KEY: v}) + "\n" for v in values
        )


@pytest.fixture
def log(tmp_path):
    return RunLog(tmp_path / "logs.json.txt", [KEY])


def test_each_line_is_read_once(log, monkeypatch):
    assert scores(log) == []
    write(log.path, 1, 2)
    assert scores(log) == [1, 2]
    parsed = []
    monkeypatch.setattr(
        "diffusion_policy.runs.run_log.parse_line",
        lambda line: parsed.append(line) or json.loads(line),
    )
    write(log.path, 3)
    assert scores(log) == [1, 2, 3]
    assert set(parsed) == {b'{"test/mean_score": 3}\n'}


def test_a_line_without_end_waits_for_it(log):
    write(log.path, 1)
    with log.path.open("a") as file:
        file.write('{"test/mean_sc')
    assert scores(log) == [1]
    with log.path.open("a") as file:
        file.write('ore": 2}\n')
    assert scores(log) == [1, 2]


def test_a_line_torn_by_a_crash_is_passed_over(log):
    log.path.write_bytes(b'{"test/mean_score": 1}\n{"test/mean_score": \x00\xff\n')
    write(log.path, 3)
    assert scores(log) == [1, 3]


@pytest.mark.parametrize("later", [[], [7], [7, 8, 9, 10]])
def test_a_log_replaced_by_a_resumed_run_is_read_anew(log, later):
    write(log.path, 1, 2, 3)
    assert scores(log) == [1, 2, 3]
    with JsonLogger(log.path, keep=2) as logger:  # keeps the records of score 1
        for value in later:
            logger.log({KEY: value})
    assert scores(log) == [1, *later]


@pytest.mark.parametrize("values", [[4], [4, 5, 6]])
def test_a_log_overwritten_in_place_is_read_anew(log, values):
    write(log.path, 1, 2)
    assert scores(log) == [1, 2]
    write(log.path, *values, mode="w")
    assert scores(log) == values


def test_a_log_that_is_gone_leaves_nothing(log):
    write(log.path, 1)
    assert scores(log) == [1]
    log.path.unlink()
    assert scores(log) == []
    assert log.last is None


def test_the_last_record_is_known_whatever_it_holds(log):
    write(log.path, 1)
    with log.path.open("a") as file:
        file.write('{"epoch": 5}\n{"epoch": 6')
    log.refresh()
    assert log.last == {"epoch": 5}
    assert log.last_with == {KEY: {KEY: 1}}


def test_columns_hold_nan_where_a_record_has_no_number(tmp_path):
    path = tmp_path / "logs.json.txt"
    records = [
        {"global_step": 0, KEY: 0.5, "lr": 1},
        {"global_step": 1, KEY: "inf"},
        {"global_step": 2, "val_loss": 3.0, "lr": 2},
        {"global_step": 3, "lr": 3},  # no row: holds none of the keys
    ]
    path.write_text(lines(records))
    log = RunLog(path, [KEY, "val_loss"], ["lr"])
    log.refresh()
    nan = math.nan
    expected = {"global_step": [0, 1, 2], KEY: [0.5, nan, nan], "val_loss": [nan, nan, 3]}
    np.testing.assert_equal(dict(log.columns()), expected | {"lr": [1, nan, 2]})
    assert log.curve(KEY).tolist() == [[0, 0.5]]
    assert log.curve("val_loss").tolist() == [[2, 3]]
