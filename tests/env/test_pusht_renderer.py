"""Pictures of PushT, and the contacts that they mark."""

import cv2
import numpy as np
import pytest

from diffusion_policy.env.pusht.contacts import contacts
from diffusion_policy.env.pusht.figures import (
    AGENT_COLOR,
    BLOCK_COLOR,
    GOAL_COLOR,
    OUTLINE_RADIUS,
    WALL_COLOR,
    background,
    block,
    corners,
    light,
    pack,
)
from diffusion_policy.env.pusht.raster import (
    fat_segment_spans,
    fine_line,
    line_spans,
    paint,
    quad_spans,
)
from diffusion_policy.env.pusht.renderer import (
    CONTACT_COLOR,
    CROSS_COLOR,
    draw,
    observation_image,
)
from diffusion_policy.env.pusht.sheet import CANVAS
from diffusion_policy.env.pusht.simulation import PushTSimulation, initial_state
from tests.reference import golden

RENDERED = golden("pusht_render")
FAR_APART = np.array([100.0, 400.0, 300.0, 100.0, 1.0])


@pytest.mark.parametrize("index", range(len(RENDERED["state"])))
def test_images_are_the_benchmarks(index):
    image = observation_image(RENDERED["state"][index])
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image.transpose(1, 2, 0), RENDERED["image"][index])


def test_images_do_not_depend_on_those_before():
    first = observation_image(RENDERED["state"][0])
    observation_image(RENDERED["state"][20])
    np.testing.assert_array_equal(observation_image(RENDERED["state"][0]), first)


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


def test_images_are_the_whole_canvas_resized():
    random = np.random.default_rng(0)
    for _ in range(100):  # agent and block anywhere, touching, and across walls and border
        agent_and_block = random.uniform(-40, 552, 4)
        state = np.array([*agent_and_block, random.uniform(0, 7)])
        np.testing.assert_array_equal(observation_image(state), draw(state, 96).transpose(2, 0, 1))


@pytest.mark.parametrize("size", [64, 96, 512, 700])
def test_frames_of_any_size_are_the_canvas_resized(size):
    canvas = draw(FAR_APART, 512)
    np.testing.assert_array_equal(draw(FAR_APART, size), cv2.resize(canvas, (size, size)))


def test_colours_are_where_they_belong():
    canvas = draw(FAR_APART, 512)
    assert tuple(canvas[250, 250]) == GOAL_COLOR
    assert tuple(canvas[400, 87]) == AGENT_COLOR
    assert tuple(canvas[5, 256]) == WALL_COLOR
    assert tuple(canvas[480, 480]) == (255, 255, 255)


def test_walls_cover_the_agent():
    canvas = draw(np.array([10.0, 400.0, 300.0, 300.0, 0.0]), 512)
    assert tuple(canvas[400, 5]) == WALL_COLOR
    assert tuple(canvas[400, 0]) != WALL_COLOR


@pytest.mark.parametrize("place", [(-10, 200), (520, 200), (200, -10), (-300, 9000)])
def test_what_leaves_the_canvas_is_cut_off(place):
    inside = draw(FAR_APART, 512)
    outside = draw(np.array([*FAR_APART[:2], *place, 0.5]), 512)
    changed = (inside != outside).any(-1)
    assert not changed[350:].any()  # the agent's part of the picture
    assert tuple(outside[5, 5]) == WALL_COLOR


@pytest.mark.parametrize("size", [96, 512])
def test_cross_marks_the_action(size):
    marked = draw(FAR_APART, size, action=np.array([448.0, 64.0]))
    plain = draw(FAR_APART, size)
    assert tuple(marked[size // 8, size - size // 8]) == CROSS_COLOR
    rows, columns = np.nonzero((marked != plain).any(-1))
    assert abs(np.ptp(rows) - size * 8 / 96) <= size / 48
    assert abs(np.ptp(columns) - size * 8 / 96) <= size / 48


def test_contacts_are_those_of_the_physics():
    random = np.random.default_rng(0)
    touched = 0
    for seed in range(4):
        simulation = PushTSimulation()
        simulation.set_state(initial_state(seed))
        for _ in range(60):
            centre = np.array(simulation.block.local_to_world((0, 45)))
            simulation.step(np.clip(centre + random.normal(0, 60, 2), 0, 512))
            expected = []
            simulation.block.each_arbiter(
                lambda arbiter, into=expected: into.extend(
                    (*point.point_a, *point.point_b) for point in arbiter.contact_point_set.points
                )
            )
            found = [
                (*contact.on_block, *contact.on_other)
                for contact in contacts(simulation.get_state())
            ]
            np.testing.assert_allclose(sorted(found), sorted(expected), atol=1e-6)
            touched += bool(found)
    assert touched > 50


def test_contacts_are_marked():
    (state,) = RENDERED["state"][13:14]
    (contact,) = contacts(state)
    x, y = (round((a + b) / 2) for a, b in zip(contact.on_block, contact.on_other, strict=True))
    near = draw(state, 512)[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3)
    assert CONTACT_COLOR in map(tuple, near.tolist())


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
