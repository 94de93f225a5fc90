import os

import numpy as np

from diffusion_policy.gym_util.shared_arrays import SharedArrays, create_block

FIELDS = {
    "flag": ((3,), "?"),
    "image": ((2, 5, 7), "u1"),
    "reward": ((3,), "f8"),
    "text": ((2,), "<U9"),
}


def test_two_mappings_see_the_same_memory():
    fd = create_block()
    ours, theirs = SharedArrays(FIELDS, fd), SharedArrays(FIELDS, fd)
    os.close(fd)  # the mappings stay
    assert not any(array.any() for array in ours.values())
    rng = np.random.default_rng(0)
    values = {
        name: rng.integers(0, 2, shape).astype(dtype) for name, (shape, dtype) in FIELDS.items()
    }
    for name, value in values.items():
        ours[name][:] = value
    for name, value in values.items():
        np.testing.assert_array_equal(theirs[name], value)
        assert theirs[name].dtype == value.dtype


def test_a_block_that_grows_keeps_its_first_arrays():
    fd = create_block()
    first = {"flag": FIELDS["flag"]}
    before = SharedArrays(first, fd)
    before["flag"][:] = True
    after = SharedArrays({**first, "large": ((100_000,), "f8")}, fd)
    assert after["flag"].all()
    after["flag"][1] = False
    assert before["flag"].tolist() == [True, False, True]
    os.close(fd)
