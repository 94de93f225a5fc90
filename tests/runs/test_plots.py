import numpy as np
import pytest

from diffusion_policy.runs.plots import group_curves, group_styles, score_curves
from tests.runs.fake_runs import evaluated, records

KEY = "test/mean_score"


def test_the_band_is_students_interval_and_ends_with_the_shortest_run():
    runs = [evaluated(records(scores), KEY) for scores in ([0.2, 0.4, 0.9], [0.4, 0.6])]
    axes = score_curves({KEY: runs}).axes[0]
    assert [len(line.get_xdata()) for line in axes.lines] == [3, 2, 2]
    np.testing.assert_allclose(axes.lines[-1].get_ydata(), [0.3, 0.5])
    band = axes.collections[0].get_paths()[0].vertices
    # t = 12.706 for two runs, and s / sqrt(n) = 0.1.
    assert band[:, 1].min() == pytest.approx(0.3 - 1.2706, abs=1e-4)
    assert band[:, 1].max() == pytest.approx(0.5 + 1.2706, abs=1e-4)


def test_one_run_has_no_band():
    axes = score_curves({KEY: [evaluated(records([0.2, 0.4]), KEY)]}).axes[0]
    assert not axes.collections
    assert axes.get_legend().get_texts()[0].get_text() == "one run"


def test_long_curves_are_thinned_to_means():
    curve = np.stack([np.arange(100_000), np.arange(100_000) % 2], axis=1)
    line = group_curves([[curve]], group_styles(1), [[0]]).axes[0].lines[0]
    assert len(line.get_xdata()) == pytest.approx(200, abs=1)
    np.testing.assert_allclose(line.get_ydata()[:-1], 0.5, atol=0.01)


def test_a_group_without_points_leaves_room_to_the_others():
    empty, full = np.empty((0, 2)), np.array([[0.0, 1.0], [9.0, 2.0]])
    axes = group_curves([[empty], [full, empty]], group_styles(2), [[0], [0, 1]]).axes[0]
    assert {line.get_color() for line in axes.lines} == {group_styles(2)[1][0]}


def test_a_group_mean_takes_repeats_of_a_seed_once():
    curves = [np.array([[0.0, score]]) for score in (0.2, 0.4, 0.9)]
    axes = group_curves([curves], group_styles(1), [[1, 1, 2]]).axes[0]
    np.testing.assert_allclose(axes.lines[-1].get_ydata(), [0.6])


def test_styles_are_all_different():
    assert len(set(group_styles(28))) == 28
