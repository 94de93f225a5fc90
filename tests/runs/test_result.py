import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from diffusion_policy.runs.result import Result, duration, percent, thousandths


@given(st.integers(0, 1000))
def test_shares_of_a_thousand_are_shown_exactly(n):
    assert percent(n / 1000) == f"{n // 10}.{n % 10}"
    assert thousandths(n / 1000) == f"{n // 1000}.{n % 1000:03d}"


@given(st.floats(0, 1))
def test_nothing_is_rounded_up(value):
    assert float(thousandths(value)) <= value
    assert math.isclose(float(thousandths(value)), value, abs_tol=0.001)
    assert float(percent(value)) <= 100 * value * (1 + 1e-15)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("data/demonstrations/pusht_scripted.zarr.zip", "scripted"),
        ("data/pusht/pusht_cchi_v7_replay.zarr", "human"),
        ("elsewhere/pusht_human.zarr.zip", "human"),
        ("scripted/mine.zarr", "mine.zarr"),
    ],
)
def test_tells_the_demonstrations_apart(path, kind):
    cfg = OmegaConf.create({"task": {"dataset": {"path": path}}})
    assert Result("a", cfg, {}, []).demonstrations == kind


def test_effort_adds_up_the_launches():
    cfg = OmegaConf.create(
        {"dataloader": {"batch_size": 8}, "training": {"gradient_accumulate_every": 2}}
    )
    launches = [{"steps": [0, 900], "seconds": 90}, {"steps": [900, 1200], "seconds": 30}]
    assert Result("a", cfg, {}, launches).effort == "1,200 steps of 16 in 2 min"
    later = Result("a", cfg, {}, launches[1:])
    assert later.effort == "1,200 steps of 16 in more than 0 min"
    assert duration(9000) == "2.5 h"
