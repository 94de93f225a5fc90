import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.util.statistics import (
    bootstrap_interval,
    mean_and_half_width,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I,
        # method 3 (score, no continuity correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_published_intervals(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


counts = st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_wilson_holds_the_rate_and_stays_a_probability(count):
    successes, n = count
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert low < high


@pytest.mark.slow
@given(counts)
def test_wilson_is_symmetric_in_success_and_failure(count):
    successes, n = count
    low, high = wilson_interval(successes, n)
    assert wilson_interval(n - successes, n) == pytest.approx((1 - high, 1 - low))


@given(counts)
def test_wilson_ends_are_where_the_score_test_rejects(count):
    """Its definition: |rate - p| = z sqrt(p (1 - p) / n) at both ends p."""
    successes, n = count
    for p in wilson_interval(successes, n, confidence=0.9):
        distance = (successes / n - p) ** 2
        assert distance == pytest.approx(1.6448536269514722**2 * p * (1 - p) / n, abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_rejects_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="no success rate"):
        wilson_interval(successes, n)


def test_bootstrap_agrees_with_the_normal_interval_of_a_large_sample():
    values = np.random.default_rng(1).exponential(size=1000)
    half_width = 1.96 * values.std() / np.sqrt(values.size)
    low, high = bootstrap_interval(values)
    assert low == pytest.approx(values.mean() - half_width, abs=0.1 * half_width)
    assert high == pytest.approx(values.mean() + half_width, abs=0.1 * half_width)


values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


@given(values, st.integers(0, 100))
def test_bootstrap_stays_among_the_values_and_repeats(values, seed):
    low, high = bootstrap_interval(values, seed, n_resamples=50)
    slack = 1e-9 * (1 + max(map(abs, values)))
    assert min(values) - slack <= low <= high <= max(values) + slack
    assert (low, high) == bootstrap_interval(values, seed, n_resamples=50)


@given(values, st.floats(-100, 100))
def test_bootstrap_moves_with_the_values(values, shift):
    low, high = bootstrap_interval(values, n_resamples=50)
    moved = bootstrap_interval(np.array(values) + shift, n_resamples=50)
    assert moved == pytest.approx((low + shift, high + shift), abs=1e-6)


def test_bootstrap_needs_values():
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval([])


@pytest.mark.parametrize(
    ("n", "quantile"),
    # Tables of Student's t: the value that |t| exceeds with probability 0.05, n - 1 degrees.
    [(2, 12.706), (3, 4.303), (5, 2.776), (31, 2.042)],
)
def test_interval_of_a_mean_is_students(n, quantile):
    values = np.arange(n)
    mean, half_width = mean_and_half_width(values)
    assert mean == values.mean()
    assert half_width == pytest.approx(quantile * values.std(ddof=1) / np.sqrt(n), rel=2e-4)


def test_interval_of_a_mean_goes_over_the_first_axis():
    mean, half_width = mean_and_half_width([[0.0, 1.0, 2.0], [0.0, 3.0, 2.0]])
    np.testing.assert_array_equal(mean, [0, 2, 2])
    np.testing.assert_allclose(half_width, [0, 12.7062, 0], rtol=1e-5)


def test_one_value_has_no_interval_and_none_no_mean():
    mean, half_width = mean_and_half_width([3.0])
    assert mean == 3
    assert np.isnan(half_width)
    with pytest.raises(ValueError, match="no values"):
        mean_and_half_width([])
