"""The block's drawing against the shapes that the benchmark draws."""

import numpy as np
import pytest

from diffusion_policy.env.pusht.render.figures import (
    BLOCK_COLOR,
    OUTLINE_RADIUS,
    background,
    block,
    corners,
    light,
    pack,
)
from diffusion_policy.env.pusht.render.raster import fat_segment_spans, paint, quad_spans
from diffusion_policy.env.pusht.render.sheet import CANVAS


@pytest.mark.slow
def test_block_is_the_benchmarks_quads_and_fat_segments():
    random = np.random.default_rng(0)
    for _ in range(100):
        place = corners(np.array([0, 0, *random.uniform(150, 362, 2), random.uniform(0, 7)]))
        starts = np.array(place).reshape(2, 4, 2)
        ends = np.roll(starts, -1, axis=1)
        fills, canvas = quad_spans(starts), background().copy()
        for fill, start, end in zip(fills, starts, ends, strict=True):
            outline = fat_segment_spans(start, end, OUTLINE_RADIUS)
            paint(canvas, [(fill, pack(light(BLOCK_COLOR))), (outline, pack(BLOCK_COLOR))])
        drawn = background().copy()
        box, pixels = block(place)
        drawn[box.seen_from(CANVAS)] = pixels
        np.testing.assert_array_equal(drawn, canvas)
