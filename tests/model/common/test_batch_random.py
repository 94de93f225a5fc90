import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffusion_policy.model.common import batch_random
from diffusion_policy.model.common.batch_random import batch_randomness

DRAWS = [
    lambda n: batch_random.randn((n, 3)),
    lambda n: batch_random.rand((n,)),
    lambda n: batch_random.randint(10, (n, 1, 1, 1)),
]


@given(st.integers(1, 20), st.integers(1, 3), st.data())
def test_parts_of_a_batch_draw_what_the_whole_draws(total, per_row, data):
    cut = data.draw(st.integers(0, total))
    with batch_randomness(0, total, total, seed=3):
        whole = [draw(total * per_row) for draw in DRAWS]
    parts = []
    for start, stop in ((0, cut), (cut, total)):
        if start < stop:
            with batch_randomness(start, stop, total, seed=3):
                parts.append([draw((stop - start) * per_row) for draw in DRAWS])
    for expected, *found in zip(whole, *parts, strict=True):
        assert torch.equal(expected, torch.cat(found))


def test_one_number_for_all_rows_is_the_same_in_every_part():
    numbers = []
    for start in range(3):
        with batch_randomness(start, start + 1, 3, seed=1):
            numbers.append((float(batch_random.rand(())), int(batch_random.randint(99, ()))))
    assert len(set(numbers)) == 1


@pytest.mark.parametrize("n", [1, 3, 5])
def test_draws_for_other_than_the_rows_are_refused(n):
    with batch_randomness(0, 2, 4, seed=1), pytest.raises(ValueError, match="2 rows"):
        batch_random.randn((n, 7))


def test_batches_draw_differently():
    drawn = []
    for seed in (1, 2):
        with batch_randomness(0, 4, 4, seed):
            drawn.append(batch_random.randn((4,)))
    assert not torch.equal(*drawn)


@pytest.mark.parametrize("draw", DRAWS)
def test_outside_a_batch_the_global_generator_is_drawn_from(draw):
    torch.manual_seed(0)
    first = draw(5)
    assert not torch.equal(first, draw(5))
    torch.manual_seed(0)
    assert torch.equal(first, draw(5))
