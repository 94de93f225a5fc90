"""The command of docs/reliability.md, with a kill of each job that does not need torch."""

from __future__ import annotations

import random

import pytest

from tests.reliability.jobs import Caching, Conversion, Recording
from tests.reliability.kills import kill


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:steps beyond the last episode end")
@pytest.mark.parametrize("make", [Recording, Conversion, Caching])
def test_killed_jobs_leave_what_they_promise(make, tmp_path):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    outcome = kill(make(inputs), 2, random.Random(0), tmp_path)
    assert outcome.n_kills >= 2
    assert not outcome.faults
