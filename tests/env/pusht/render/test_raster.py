"""Which pixels shapes cover."""

import numpy as np
import pytest

from diffusion_policy.env.pusht.render.raster import fine_line, line_spans, paint, quad_spans


def test_quads_fill_rows_between_crossings_rounded_down():
    # A diamond whose right corners are (9, 4) and the rest of x run by 3/4 and 4/3 per row.
    canvas = np.zeros((9, 10), np.uint32)
    paint(canvas, [(quad_spans(np.array([[[4, 0], [9, 4], [5, 8], [0, 4]]])), np.uint32(1))])
    expected = [(4, 4), (3, 5), (2, 6), (1, 7), (0, 9), (1, 8), (2, 7), (3, 6), (5, 5)]
    found = [(np.flatnonzero(row).min(), np.flatnonzero(row).max()) for row in canvas]
    assert found == expected


def test_thick_lines_widen_across_their_direction():
    canvas = np.zeros((12, 12), np.uint32)
    lines = line_spans(np.array([[2, 3], [9, 3]]), np.array([[6, 3], [9, 9]]), thickness=2)
    paint(canvas, [(lines, np.uint32(1))])
    expected = np.zeros((12, 12))
    expected[3:5, 2:7] = 1
    expected[3:10, 9:11] = 1
    np.testing.assert_array_equal(canvas, expected)


def test_later_layers_cover_earlier_ones():
    canvas = np.zeros((1, 6), np.uint32)
    below, above = np.array([[0, -5, 4]]), np.array([[0, 2, 99], [3, 0, 5], [0, 4, 3]])
    paint(canvas, [(below, np.uint32(1)), (above, np.uint32(2))])
    assert canvas.tolist() == [[1, 1, 2, 2, 2, 2]]


@pytest.mark.parametrize("reverse", [False, True])
def test_fine_lines_share_light_between_neighbours(reverse):
    pixels = np.full((4, 7, 3), 255, np.uint8)
    ends = [(1, 1), (5, 2)]
    fine_line(pixels, *(ends[::-1] if reverse else ends), color=(15, 15, 15))
    darkness = (255 - pixels[..., 0].astype(int)).T[1:6, 1:3]
    assert darkness.tolist() == [[240, 0], [180, 60], [120, 120], [60, 180], [0, 240]]
    assert (pixels[[0, 3]] == 255).all()
