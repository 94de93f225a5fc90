"""Overlap areas of convex polygons."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from diffusion_policy.env.pusht.block import BAR, STEM, transform
from diffusion_policy.env.pusht.geometry import (
    counter_clockwise,
    intersection_area,
    polygon_area,
)

coordinates = st.floats(-200, 200)
angles = st.floats(-10, 10)


@st.composite
def convex_polygons(draw):
    """Corners on an ellipse, in order of their angle, so that the polygon is convex."""
    corners = draw(st.lists(st.integers(0, 99), min_size=3, max_size=8, unique=True))
    width, height = draw(st.floats(5, 100)), draw(st.floats(5, 100))
    turns = [2 * math.pi * corner / 100 for corner in sorted(corners)]
    ellipse = [(width * math.cos(turn), height * math.sin(turn)) for turn in turns]
    assume(polygon_area(ellipse) > 1)
    return transform(ellipse, draw(coordinates), draw(coordinates), draw(angles))


def overlap(subject, clip):
    return intersection_area(subject, counter_clockwise(clip))


@given(convex_polygons(), convex_polygons())
def test_overlap_is_symmetric_and_no_larger_than_either(a, b):
    assert overlap(a, b) == pytest.approx(overlap(b, a), abs=1e-6)
    assert 0 <= overlap(a, b) <= min(polygon_area(a), polygon_area(b)) + 1e-6


@given(convex_polygons())
def test_a_polygon_overlaps_itself_entirely(polygon):
    assert overlap(polygon, polygon) == pytest.approx(polygon_area(polygon), rel=1e-6)


@given(convex_polygons(), convex_polygons(), coordinates, coordinates, angles)
def test_overlap_survives_rigid_motion(a, b, x, y, angle):
    moved = overlap(transform(a, x, y, angle), transform(b, x, y, angle))
    assert moved == pytest.approx(overlap(a, b), abs=1e-6)


@given(coordinates, coordinates)
def test_overlap_of_rectangles_is_width_times_height(x, y):
    bar, stem = BAR, [(px + x, py + y) for px, py in STEM]
    width = max(0, min(60, x + 15) - max(-60, x - 15))
    height = max(0, min(30, y + 120) - max(0, y + 30))
    assert overlap(bar, stem) == pytest.approx(width * height, abs=1e-9)


@given(convex_polygons(), convex_polygons())
def test_overlaps_with_the_two_sides_of_a_cut_add_up(polygon, cut):
    (ax, ay), (bx, by) = cut[0], cut[1]
    length = math.hypot(bx - ax, by - ay)
    assume(length > 1)
    along, across = (
        ((bx - ax) / length, (by - ay) / length),
        ((ay - by) / length, (bx - ax) / length),
    )
    sides = [
        [
            (ax + u * along[0] + v * across[0], ay + u * along[1] + v * across[1])
            for u, v in ((-2000, 0), (2000, 0), (2000, side), (-2000, side))
        ]
        for side in (2000, -2000)
    ]
    total = sum(overlap(polygon, side) for side in sides)
    assert total == pytest.approx(polygon_area(polygon), rel=1e-6)
