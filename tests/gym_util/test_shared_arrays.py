import os

import numpy as np

from diffusion_policy.gym_util.shared_arrays import SharedArrays

FIELDS = {"flag": ((3,), "?"), "image": ((2, 5, 7), "u1"), "reward": ((3,), "f8")}


def test_two_mappings_see_the_same_memory():
    ours = SharedArrays(FIELDS)
    theirs = SharedArrays(FIELDS, ours.fd)
    os.close(ours.fd)  # the mappings stay
    assert all((array == 0).all() for array in ours.values())
    rng = np.random.default_rng(0)
    values = {
        name: rng.integers(0, 2, shape).astype(dtype) for name, (shape, dtype) in FIELDS.items()
    }
    for name, value in values.items():
        ours[name][:] = value
    for name, value in values.items():
        np.testing.assert_array_equal(theirs[name], value)
        assert theirs[name].dtype == value.dtype
