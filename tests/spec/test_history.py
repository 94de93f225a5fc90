import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.spec.history import ObservationHistory


@given(
    offsets=st.sets(st.integers(-9, 0), min_size=1).map(sorted),
    n_steps=st.integers(1, 15),
)
def test_reads_at_the_offsets_and_repeats_the_first(offsets, n_steps):
    history = ObservationHistory(offsets)
    for step in range(n_steps):
        history.append({"step": np.array([step]), "text": str(step)})
        expected = [max(0, step + offset) for offset in offsets]
        assert [int(each["step"][0]) for each in history.read()] == expected
        assert [each["text"] for each in history.read()] == [str(time) for time in expected]


def test_keeps_copies():
    history, value = ObservationHistory((0,)), np.zeros(2)
    history.append({"value": value})
    value += 1
    assert history.read()[0]["value"].tolist() == [0, 0]


@pytest.mark.parametrize("offsets", [(0, -1), (-1, 1)])
def test_offsets_must_be_ascending_and_in_the_past(offsets):
    with pytest.raises(ValueError, match="ascending and at most 0"):
        ObservationHistory(offsets)
