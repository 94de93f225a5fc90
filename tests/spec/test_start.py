import pytest

from diffusion_policy.spec.start import Start
from diffusion_policy.util.errors import UserError


def test_a_seeded_start_is_named_by_its_seed():
    start = Start.of_seed("test", 100_000)
    assert start == Start("test", "100000", 100_000)
    assert start.label == "seed 100000"


def test_another_start_is_named_with_its_group():
    assert Start("corners", "left", 3, {"state": (1.0, 2.0)}).label == "corners left"


def test_options_are_plain_data():
    assert Start("corners", "left", 0, {"state": (1.0, 2.0)}).options == {"state": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"seed": 7, "max_reward": 1.0}, Start("test", "7", 7)),  # as early versions wrote
        ({"seed": 0, "group": "corners", "name": "left"}, Start("corners", "left", 0)),
    ],
)
def test_is_read_from_the_record_of_an_episode(record, expected):
    assert Start.of_record(record) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a/b", "c", 0), "group of a start is 'a/b'"),
        (("a", "", 0), "name of a start is ''"),
        (("a", "b", -1), "seed of start a b is -1; use a whole number"),
    ],
)
def test_what_cannot_name_a_video_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Start(*arguments)


@pytest.mark.parametrize("seed", [-1, 1.5, 2**32, "7", None])
def test_seeds_that_no_generator_takes_are_refused(seed):
    with pytest.raises(UserError, match="the seed of start test a is"):
        Start("test", "a", seed)


def test_options_are_keys_and_values():
    with pytest.raises(UserError, match=r"the options of start test a are \[1, 2\]"):
        Start("test", "a", 0, [1, 2])
