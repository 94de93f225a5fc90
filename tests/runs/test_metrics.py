import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.runs.metrics import METRICS, aggregate, history
from diffusion_policy.util.json_logger import read_log
from tests.runs.fake_runs import GOLDEN, evaluated, records

KEY = "test/mean_score"


def test_metrics_equal_the_reference():
    expected = json.loads((GOLDEN / "expected_metrics.json").read_text())
    logs = [read_log(path) for path in sorted(GOLDEN.glob("train_*/logs.json.txt"))]
    found = {}
    for key in (KEY, "train/mean_score"):
        found |= aggregate([evaluated(log, key) for log in logs], key)
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "best"), [(12, 10), (12, 11), (12, 2), (30, 20), (5, 4)])
def test_window_around_the_best_is_ten_wide_where_there_are_ten(n, best):
    scores = [float(i == best) for i in range(n)]
    found = METRICS["k_around_max"](evaluated(records(scores), KEY))
    assert found == pytest.approx(1 / min(n, 10) if best > 4 or n < 10 else 1 / (best + 5))


def test_history_ends_with_the_metrics():
    runs = [evaluated(records(s), KEY) for s in ([0.1, 0.4, 0.9], [0.3, 0.2])]
    found = history({KEY: runs})
    assert [record[KEY] for record in found] == pytest.approx([0.2, 0.3])
    assert [record["global_step"] for record in found] == [int(step) for step in runs[0].steps[:2]]
    assert aggregate(runs, KEY).items() <= found[-1].items()
    assert found[0]["max/test_mean_score"] == pytest.approx(0.2)
    assert history({KEY: []}) == []


def test_runs_are_cut_to_the_shortest():
    long, short = (evaluated(records(s), KEY) for s in ([0.1, 0.4, 0.9], [0.2, 0.2]))
    found = aggregate([long, short], KEY)
    assert found["max/test_mean_score"] == pytest.approx((0.4 + 0.2) / 2)
    assert found["last/test_mean_score"] == pytest.approx((0.4 + 0.2) / 2)
    assert found["metric_global_step/test_mean_score"] == 1


@pytest.mark.parametrize("lost", ["nan", "inf", math.nan, None])
def test_a_score_that_is_not_finite_evaluates_nothing(lost):
    log = records([0.1, 0.2, 0.3])
    log[3][KEY] = lost
    assert evaluated(log, KEY).values.tolist() == [0.1, 0.3]


@pytest.mark.parametrize("lost", ["nan", "inf", None])
def test_a_loss_that_is_not_finite_is_never_the_smallest(lost):
    log = records([0.1, 0.2, 0.3])
    log[-1]["val_loss"] = lost
    assert METRICS["min_val_loss"](evaluated(log, KEY)) == 0.2
    assert METRICS["k_min_val_loss"](evaluated(log, KEY)) == pytest.approx(0.15)
    assert METRICS["min_train_loss"](evaluated(log, KEY)) == 0.3


def test_metrics_by_a_loss_need_it_in_every_run():
    log = records([0.1, 0.2])
    without = [{k: v for k, v in record.items() if k != "val_loss"} for record in log]
    found = aggregate([evaluated(log, KEY), evaluated(without, KEY)], KEY)
    lacking = {"min_val_loss/test_mean_score", "k_min_val_loss/test_mean_score"}
    assert lacking.isdisjoint(found)
    assert len(found) == len(METRICS) + 1 - len(lacking)


def test_nothing_in_common_has_no_metrics():
    assert aggregate([], KEY) == {}
    assert aggregate([evaluated(records([0.5]), KEY), evaluated([], KEY)], KEY) == {}


scores = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40)


@given(scores)
def test_metrics_stay_among_the_scores(values):
    run = evaluated(records(values), KEY)
    for metric, of_run in METRICS.items():
        slack = 1e-9
        assert min(values) - slack <= of_run(run) <= max(values) + slack, metric
    assert METRICS["max"](run) == max(values)
    # The fake losses fall: the last evaluation has the smallest.
    assert METRICS["min_val_loss"](run) == METRICS["last"](run) == values[-1]
    assert METRICS["k_min_val_loss"](run) == pytest.approx(np.mean(values[-10:]))
