import json
import resource
from contextlib import contextmanager

import numpy as np
import pytest

from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_logger import JsonLogger, read_log


def test_records_are_numbers_and_strings(tmp_path):
    path = tmp_path / "logs.json.txt"
    with JsonLogger(path) as logger:
        logger.log({"loss": np.float32(0.5), "step": np.int64(3), "video": "a.mp4", "x": object()})
        logger.log({"loss": float("nan")})
    assert read_log(path) == [{"loss": 0.5, "step": 3, "video": "a.mp4"}, {"loss": "nan"}]


def test_reopening_drops_torn_and_later_records(tmp_path):
    path = tmp_path / "logs.json.txt"
    with JsonLogger(path) as logger:
        for step in range(4):
            logger.log({"global_step": step})
    with path.open("a") as file:
        file.write('{"global_step": 4, "tra')
    assert len(read_log(path)) == 4
    with JsonLogger(path, keep=2) as logger:
        logger.log({"global_step": 2, "again": True})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"global_step": 0}, {"global_step": 1}, {"global_step": 2, "again": True}]


@pytest.mark.parametrize("damaged", [b"5", b"[]", b"[" * 100_000, b'{"global_step": "a"}', b"\xff"])
def test_a_damaged_line_is_left_out_and_shifts_no_other(tmp_path, damaged):
    path = tmp_path / "logs.json.txt"
    path.write_bytes(b'{"global_step": 0}\n' + damaged + b'\n{"global_step": 2}\n')
    assert [record["global_step"] for record in read_log(path)] == [0, 2]
    with JsonLogger(path, keep=2) as logger:
        assert logger.n_kept == 1
    assert read_log(path) == [{"global_step": 0}]


def test_a_missing_log_is_empty(tmp_path):
    assert read_log(tmp_path / "none") == []


@contextmanager
def files_of_at_most(n_bytes):
    """A limit on file size fails like a full disk: in the middle of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_and_keeps_the_records_before(tmp_path):
    path = tmp_path / "logs.json.txt"
    record = {"text": "x" * 30_000}
    with files_of_at_most(100_000), JsonLogger(path) as logger:
        for _ in range(3):
            logger.log(record)
        with pytest.raises(UserError, match=r"cannot write .*logs\.json\.txt: File too large"):
            logger.log(record)
    assert path.stat().st_size == 100_000
    assert read_log(path) == [record] * 3
    with JsonLogger(path, keep=3) as logger:
        logger.log({"again": True})
    assert read_log(path) == [*[record] * 3, {"again": True}]
