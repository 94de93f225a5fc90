"""Images and frames of PushT."""

import cv2
import numpy as np
import pytest

from diffusion_policy.env.pusht.contacts import contacts
from diffusion_policy.env.pusht.render.figures import AGENT_COLOR, GOAL_COLOR, WALL_COLOR
from diffusion_policy.env.pusht.render.renderer import (
    CONTACT_COLOR,
    CROSS_COLOR,
    draw,
    observation_image,
)
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
    assert not changed[350:].any()  # the agent's part of the image
    assert tuple(outside[5, 5]) == WALL_COLOR


@pytest.mark.parametrize("size", [96, 512])
def test_cross_marks_the_action(size):
    marked = draw(FAR_APART, size, action=np.array([448.0, 64.0]))
    plain = draw(FAR_APART, size)
    assert tuple(marked[size // 8, size - size // 8]) == CROSS_COLOR
    rows, columns = np.nonzero((marked != plain).any(-1))
    assert abs(np.ptp(rows) - size * 8 / 96) <= size / 48
    assert abs(np.ptp(columns) - size * 8 / 96) <= size / 48


def test_contacts_are_marked():
    (state,) = RENDERED["state"][13:14]
    (contact,) = contacts(state)
    x, y = (round((a + b) / 2) for a, b in zip(contact.on_block, contact.on_other, strict=True))
    near = draw(state, 512)[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3)
    assert CONTACT_COLOR in map(tuple, near.tolist())
