"""The points where the block of PushT touches agent and walls, computed from a state."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from pymunk import Vec2d

from diffusion_policy.env.pusht.simulation import PushTSimulation


class Contact(NamedTuple):
    """A pair of touching points in world units, one penetration depth apart."""

    on_block: Vec2d
    on_other: Vec2d
    normal: Vec2d
    """Unit vector out of the block, at the point of contact."""


def contacts(state: np.ndarray) -> list[Contact]:
    """The contacts of the block with agent and walls in a state (5,)."""
    world = _surroundings()
    agent_x, agent_y, block_x, block_y, angle = map(float, state)
    world.agent.position = (agent_x, agent_y)
    world.space.reindex_shapes_for_body(world.agent)
    # The angle comes first, because turning the body moves its position.
    world.block.angle = angle
    world.block.position = (block_x, block_y)
    return [
        Contact(point.point_a, point.point_b, touch.contact_point_set.normal)
        for part in world.block_shapes
        for touch in world.space.shape_query(part)
        for point in touch.contact_point_set.points
    ]


@cache
def _surroundings() -> PushTSimulation:
    """A world without the block's shapes, which are the queries."""
    world = PushTSimulation()
    world.space.remove(*world.block_shapes)
    return world
