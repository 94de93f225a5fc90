"""The agent's ways around the block."""

import numpy as np
import pytest

from diffusion_policy.env.pusht.expert import pushing
from diffusion_policy.env.pusht.expert.routes import RUN_UP, Routes


def test_routes_go_around_the_block_without_touching_it():
    faces = np.arange(len(pushing.FACES))
    middle = (pushing.FACE_LOW + pushing.FACE_HIGH) / 2
    routes = Routes(agent=np.array([0.0, -80.0]))  # before the bar's top
    part = np.linspace(0, 1, 50)[:, None]
    bar, stem = (-60, 60, -45, -15), (-15, 15, -15, 75)
    for face, s, length in zip(faces, middle, routes.lengths(faces, middle), strict=True):
        way = routes.way(face, s)
        legs = np.diff(way, axis=0)
        assert np.linalg.norm(legs, axis=1).sum() == pytest.approx(length)
        assert np.linalg.norm(legs[-1]) == pytest.approx(RUN_UP)
        np.testing.assert_array_equal(way[-1], pushing.contact(face, s))
        for start, leg in zip(way[:-2], legs[:-1], strict=True):
            x, y = (start + part * leg).T
            for low_x, high_x, low_y, high_y in (bar, stem):
                aside = np.maximum(np.maximum(low_x - x, x - high_x), 0)
                above = np.maximum(np.maximum(low_y - y, y - high_y), 0)
                assert np.hypot(aside, above).min() > 15
