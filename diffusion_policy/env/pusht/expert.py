"""A scripted expert for PushT: plans at most two pushes ahead, re-plans at every step.

The block has no friction with the floor and stops when it is not pushed, so a push with the
agent at a fixed point of one of the block's faces moves the block along an arc of constant
curvature. Two such arcs have four free parameters (where on the face, how far, twice), one more
than the three of a planar pose, so nearly every pose can be brought to the goal by two pushes.
The expert

1. tries a grid of first pushes, each followed by the second push that comes nearest the goal;
2. keeps the cheapest few and slides their parameters until they end at the goal;
3. executes the cheapest, counted in steps: travel around the block, pushes, what is left over.

All of it is a function of the current state, but for one memory: the plan of the step before
competes with the new ones and has to be beaten clearly. This keeps the expert decisive.

Inside this file lengths are world units, a *pose* is (x, y, angle) of a frame at the block's
centre of gravity, and *local* means coordinates in that frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from diffusion_policy.env.pusht.simulation import (
    AGENT_RADIUS,
    BAR,
    GOAL_POSE,
    STEM,
    WORLD_SIZE,
    transform,
)

# The block: centre of gravity in block coordinates, and moment of inertia over mass.
COG = np.array([0.0, 45.0])
GYRATION = 3000.0
ANGLE_WEIGHT = 50.0
"""Units of length that one radian counts for: about the block's radius of gyration."""

# How the agent moves. Under the PD law the agent covers about 0.4 of its lead a step.
TRAVEL_LEAD = 36.0
PUSH_LEAD = 24.0
SPEED_PER_LEAD = 0.4
STANDOFF = 18.0
"""Free space between agent and face where a push's straight run-up begins."""
CLEARANCE = 4.0
"""Free space between agent and block below which a route counts as blocked."""

# Costs, in steps.
PUSH_OVERHEAD = 5.0
MISS_COST, MISS_SLOPE = 25.0, 0.4
MISS_FREE, MISS_FULL = 1.0, 4.0
SWITCH_MARGIN = 3.0

_PUSH_DISTANCES = np.array([2.0, 5, 9, 14, 20, 28, 38, 50, 65, 85, 110, 140, 180])
_LONGEST_PUSH = 300.0
SHORTEST_PUSH = 0.5
_REFINED_PLANS = 16


# -- the block's faces -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Face:
    """A side of the T that the agent can push: ``origin + s * tangent`` for s in [low, high]."""

    origin: tuple[float, float]
    tangent: tuple[float, float]
    normal: tuple[float, float]  # direction of the push, into the block
    low: float
    high: float
    samples: int


def _faces() -> list[_Face]:
    half_bar, thickness = BAR[1][0], BAR[1][1]
    half_stem, length = STEM[2][0], STEM[2][1]
    # Contacts stay this far from a corner, where the contact's normal would turn.
    rim = 4.0
    # Beside an inner corner the agent needs room for its own radius.
    room = AGENT_RADIUS + CLEARANCE + 2.0
    faces = [_Face((0, 0), (1, 0), (0, 1), -half_bar + rim, half_bar - rim, 10)]
    for side in (-1, 1):
        faces.append(_Face((side * half_bar, 0), (0, 1), (-side, 0), rim, thickness - rim, 4))
        inner = half_stem + room, half_bar - rim
        low, high = inner if side > 0 else (-inner[1], -inner[0])
        faces.append(_Face((0, thickness), (1, 0), (0, -1), low, high, 3))
        low, high = thickness + room, length - rim
        faces.append(_Face((side * half_stem, 0), (0, 1), (-side, 0), low, high, 8))
    faces.append(_Face((0, length), (1, 0), (0, -1), -half_stem + rim, half_stem - rim, 4))
    return faces


_FACES = _faces()
_ORIGIN = np.array([face.origin for face in _FACES], float) - COG
_TANGENT = np.array([face.tangent for face in _FACES], float)
_NORMAL = np.array([face.normal for face in _FACES], float)
_LOW = np.array([face.low for face in _FACES])
_HIGH = np.array([face.high for face in _FACES])
# The grid of contacts that the search tries.
_GRID_FACE = np.concatenate([np.full(face.samples, i) for i, face in enumerate(_FACES)])
_GRID_S = np.concatenate([np.linspace(face.low, face.high, face.samples) for face in _FACES])
_CORNERS = np.array([*BAR, *STEM], float) - COG


def _contact(face: np.ndarray, s: np.ndarray, gap: float = 0.0) -> np.ndarray:
    """Local agent position (..., 2) that touches ``face`` at ``s``, or stands ``gap`` off it."""
    surface = _ORIGIN[face] + s[..., None] * _TANGENT[face]
    return surface - (AGENT_RADIUS + gap) * _NORMAL[face]


def _twist(face: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Local motion (..., 3) of the block per unit that the contact advances.

    An impulse j along the normal n at the arm r gives velocity j n / m and spin j (r x n) / I;
    the contact's own advance per impulse is 1 / m + (r x n)^2 / I.
    """
    surface = _ORIGIN[face] + s[..., None] * _TANGENT[face]
    normal = _NORMAL[face]
    lever = surface[..., 0] * normal[..., 1] - surface[..., 1] * normal[..., 0]
    advance = 1 + lever**2 / GYRATION
    return np.concatenate([normal, (lever / GYRATION)[..., None]], -1) / advance[..., None]


# -- planar poses ------------------------------------------------------------------------------


def _moved(pose: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Pose after moving by a constant local twist ``motion`` = (dx, dy, angle)."""
    angle = motion[..., 2]
    small = np.abs(angle) < 1e-9
    safe = np.where(small, 1.0, angle)
    sine = np.where(small, 1.0, np.sin(safe) / safe)
    versine = np.where(small, 0.0, (1 - np.cos(safe)) / safe)
    x = sine * motion[..., 0] - versine * motion[..., 1]
    y = versine * motion[..., 0] + sine * motion[..., 1]
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    return np.stack(
        [pose[..., 0] + cos * x - sin * y, pose[..., 1] + sin * x + cos * y, pose[..., 2] + angle],
        -1,
    )


def _motion_to_goal(pose: np.ndarray) -> np.ndarray:
    """The constant local twist (..., 3) that leads to the goal; the inverse of :func:`_moved`."""
    angle = (GOAL[2] - pose[..., 2] + np.pi) % (2 * np.pi) - np.pi
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    dx, dy = GOAL[0] - pose[..., 0], GOAL[1] - pose[..., 1]
    x, y = cos * dx + sin * dy, -sin * dx + cos * dy
    half = np.where(np.abs(angle) < 1e-9, 1e-9, angle) / 2
    cot = half / np.tan(half)
    return np.stack([cot * x + half * y, -half * x + cot * y, angle], -1)


def _to_world(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """World coordinates of local ``points`` (..., 2) under ``pose`` (..., 3)."""
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    x, y = points[..., 0], points[..., 1]
    return np.stack([pose[..., 0] + cos * x - sin * y, pose[..., 1] + sin * x + cos * y], -1)


def _to_local(point: np.ndarray, pose: np.ndarray) -> np.ndarray:
    cos, sin = math.cos(pose[2]), math.sin(pose[2])
    dx, dy = point[0] - pose[0], point[1] - pose[1]
    return np.array([cos * dx + sin * dy, -sin * dx + cos * dy])


def _cog_pose(x: float, y: float, angle: float) -> np.ndarray:
    (cog,) = transform([tuple(COG)], x, y, angle)
    return np.array([*cog, angle])


GOAL = _cog_pose(*GOAL_POSE)
_WEIGHT = np.array([1.0, 1.0, ANGLE_WEIGHT])


# -- ways around the block ---------------------------------------------------------------------

_BOXES = np.array(
    [[np.min(part, 0) - COG, np.max(part, 0) - COG] for part in (BAR, STEM)]
)  # (2 boxes, min/max, 2)
_BLOCKED = _BOXES + (AGENT_RADIUS + CLEARANCE) * np.array([[-1.0], [1.0]])


def _waypoints() -> np.ndarray:
    """Local points off the six outer corners of the T: shortest ways around it turn there."""
    gap = AGENT_RADIUS + 2 * CLEARANCE
    (x0, y0), (x1, y1) = _BOXES[0] + gap * np.array([[-1], [1]])
    (u0, _), (u1, v1) = _BOXES[1] + gap * np.array([[-1], [1]])
    return np.array([(x0, y0), (x1, y0), (x1, y1), (u1, v1), (u0, v1), (x0, y1)])


def _free(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Whether the straight ways ``start`` (..., 2) to ``end`` (..., 2) keep clear of the block."""
    start, end = np.broadcast_arrays(start, end)
    clear = np.ones(start.shape[:-1], bool)
    delta = end - start
    delta = np.where(np.abs(delta) < 1e-9, 1e-9, delta)
    for low, high in _BLOCKED:
        first, second = (low - start) / delta, (high - start) / delta
        enter = np.minimum(first, second).max(-1)
        leave = np.maximum(first, second).min(-1)
        clear &= (np.maximum(enter, 0) >= np.minimum(leave, 1)) | (leave < 0) | (enter > 1)
    return clear


def _shortest_between(points: np.ndarray) -> np.ndarray:
    """All-pairs shortest ways between ``points`` (Floyd-Warshall)."""
    length = np.linalg.norm(points[:, None] - points[None], axis=-1)
    length = np.where(_free(points[:, None], points[None]), length, np.inf)
    np.fill_diagonal(length, 0)
    for k in range(len(points)):
        length = np.minimum(length, length[:, k, None] + length[None, k])
    return length


_WAYPOINTS = _waypoints()
_WAYPOINT_LENGTH = _shortest_between(_WAYPOINTS)


def _escape(local: np.ndarray) -> np.ndarray:
    """The nearest point to the agent that is clear of the block; often where it already is."""
    point = local
    for _ in range(2):  # leaving one box may lead into the other
        for low, high in _BLOCKED:
            if np.all(point > low) and np.all(point < high):
                exits = np.array([point[0] - low[0], high[0] - point[0], point[1] - low[1], 0])
                exits[3] = high[1] - point[1]
                nearest = int(np.argmin(exits))
                point = point.copy()
                point[nearest // 2] = (low if nearest % 2 == 0 else high)[nearest // 2] + (
                    -1e-3 if nearest % 2 == 0 else 1e-3
                )
    return point


def _route(start: np.ndarray, face: int, s: float, usable: np.ndarray) -> list[np.ndarray]:
    """Local points from the agent at ``start`` to the contact ``s`` of ``face``."""
    contact = _contact(np.array(face), np.array(s))
    run_up = _contact(np.array(face), np.array(s), STANDOFF)
    if _facing(start, np.array(face)):
        return [start, contact]
    outside = _escape(start)
    if _free(outside, run_up):
        return [start, outside, run_up, contact]
    first, last, length = _best_waypoints(outside, run_up[None], usable)
    if not np.isfinite(length[0]):
        return [start, outside, run_up, contact]
    way = _waypoint_path(int(first[0]), int(last[0]), usable)
    return [start, outside, *(_WAYPOINTS[i] for i in way), run_up, contact]


def _facing(local: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Whether an agent at ``local`` (2,) stands right before ``face`` (...) and may slide on it."""
    offset = local - _ORIGIN[face]
    along = (offset * _TANGENT[face]).sum(-1)
    gap = -(offset * _NORMAL[face]).sum(-1) - AGENT_RADIUS
    within = (along > _LOW[face] - 2) & (along < _HIGH[face] + 2)
    return within & (gap < STANDOFF + 2) & (gap > -AGENT_RADIUS)


def _best_waypoints(
    start: np.ndarray, ends: np.ndarray, usable: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and last waypoint and length of the shortest ways from ``start`` to ``ends`` (N, 2)."""
    leave = np.linalg.norm(_WAYPOINTS - start, axis=-1)
    leave = np.where(_free(start, _WAYPOINTS) & usable, leave, np.inf)
    arrive = np.linalg.norm(_WAYPOINTS - ends[:, None], axis=-1)
    arrive = np.where(_free(_WAYPOINTS, ends[:, None]) & usable, arrive, np.inf)
    between = _lengths_over(usable)
    total = leave[None, :, None] + between[None] + arrive[:, None, :]
    flat = total.reshape(len(ends), -1)
    best = flat.argmin(-1)
    count = len(_WAYPOINTS)
    return best // count, best % count, flat.min(-1)


def _lengths_over(usable: np.ndarray) -> np.ndarray:
    """Lengths of the ways between waypoints that touch only usable ones."""
    if usable.all():
        return _WAYPOINT_LENGTH
    direct = np.linalg.norm(_WAYPOINTS[:, None] - _WAYPOINTS[None], axis=-1)
    direct = np.where(_free(_WAYPOINTS[:, None], _WAYPOINTS[None]), direct, np.inf)
    direct = np.where(usable[:, None] & usable[None], direct, np.inf)
    for k in range(len(_WAYPOINTS)):
        direct = np.minimum(direct, direct[:, k, None] + direct[None, k])
    return direct


def _waypoint_path(first: int, last: int, usable: np.ndarray) -> list[int]:
    """The waypoints from ``first`` to ``last``, both included, along a shortest way."""
    length = _lengths_over(usable)
    way = [first]
    while way[-1] != last:
        here = way[-1]
        step = np.linalg.norm(_WAYPOINTS - _WAYPOINTS[here], axis=-1)
        step = np.where(_free(_WAYPOINTS[here], _WAYPOINTS) & usable, step, np.inf)
        step[here] = np.inf
        way.append(int(np.argmin(step + length[:, last])))
    return way


def _lengths_from(start: np.ndarray, face: np.ndarray, s: np.ndarray, usable: np.ndarray):
    """Length (N,) of :func:`_route` to many contacts at once."""
    run_up = _contact(face, s, STANDOFF)
    outside = _escape(start)
    direct = np.linalg.norm(run_up - outside, axis=-1)
    direct = np.where(_free(outside, run_up), direct, np.inf)
    around = _best_waypoints(outside, run_up, usable)[2]
    length = np.linalg.norm(outside - start) + np.minimum(direct, around) + STANDOFF
    slide = np.linalg.norm(_contact(face, s) - start, axis=-1)
    return np.where(_facing(start, face), slide, length)


def _grid_lengths() -> np.ndarray:
    """(C, C) travel between the grid's contacts."""
    starts = _contact(_GRID_FACE, _GRID_S)
    everywhere = np.ones(len(_WAYPOINTS), bool)
    return np.stack([_lengths_from(start, _GRID_FACE, _GRID_S, everywhere) for start in starts])


_GRID_LENGTH = _grid_lengths()
_GRID_TWIST = _twist(_GRID_FACE, _GRID_S)
_GRID_CONTACT = _contact(_GRID_FACE, _GRID_S)


# -- planning ----------------------------------------------------------------------------------


@dataclass
class Plans:
    """K plans of two pushes each; a plan of one push has ``distance[:, 0] == 0``.

    Attributes:
        face: (K, 2) index of the pushed face.
        s: (K, 2) place on the face.
        distance: (K, 2) how far the contact advances.
    """

    face: np.ndarray
    s: np.ndarray
    distance: np.ndarray

    def __getitem__(self, index: np.ndarray | slice) -> Plans:
        return Plans(self.face[index], self.s[index], self.distance[index])

    @staticmethod
    def joined(plans: list[Plans]) -> Plans:
        return Plans(
            *(
                np.concatenate([getattr(p, name) for p in plans])
                for name in ("face", "s", "distance")
            )
        )


def _miss_cost(residual: np.ndarray) -> np.ndarray:
    """Steps that a plan which ends ``residual`` (..., 3) off the goal will still need, roughly."""
    miss = np.linalg.norm(residual, axis=-1)
    ramp = np.clip((miss - MISS_FREE) / (MISS_FULL - MISS_FREE), 0, 1)
    return MISS_COST * ramp + MISS_SLOPE * miss


def _inside(points: np.ndarray, margin: float) -> np.ndarray:
    return ((points > margin) & (points < WORLD_SIZE - margin)).all(-1)


def _search(pose: np.ndarray, travel: np.ndarray) -> Plans:
    """The best plan for each pair of faces, best pair first, from the grid.

    Args:
        pose: (3,) of the block.
        travel: (C,) length of the agent's way to each contact of the grid.
    """
    reachable = _inside(_to_world(_GRID_CONTACT, pose), 2.0)
    travel = np.where(reachable, travel, np.inf)
    count, distances = len(_GRID_S), len(_PUSH_DISTANCES)
    # First pushes (C, D) plus, as one more row, no first push at all.
    motion = _GRID_TWIST[:, None] * _PUSH_DISTANCES[:, None]
    after = _moved(pose, motion).reshape(-1, 3)
    legal = _inside(_to_world(_CORNERS, after[:, None]), 8.0).all(-1)
    first_cost = (
        travel[:, None] / (TRAVEL_LEAD * SPEED_PER_LEAD)
        + _PUSH_DISTANCES / (PUSH_LEAD * SPEED_PER_LEAD)
        + PUSH_OVERHEAD
    ).reshape(-1)
    first_cost = np.where(legal, first_cost, np.inf)
    after = np.concatenate([after, pose[None]])
    link = np.repeat(_GRID_LENGTH, distances, 0)
    link = np.concatenate([link, travel[None]]) / (TRAVEL_LEAD * SPEED_PER_LEAD)
    first_cost = np.append(first_cost, 0.0)

    # The second push is a ray in the space of motions: its best distance is a projection.
    wanted = _motion_to_goal(after) * _WEIGHT
    ray = _GRID_TWIST * _WEIGHT
    distance = np.clip(wanted @ ray.T / (ray**2).sum(-1), 0, _LONGEST_PUSH)
    residual = wanted[:, None] - distance[..., None] * ray
    open_contact = _inside(_to_world(_GRID_CONTACT, after[:, None]), 2.0)
    cost = (
        first_cost[:, None]
        + link
        + distance / (PUSH_LEAD * SPEED_PER_LEAD)
        + PUSH_OVERHEAD
        + _miss_cost(residual)
    )
    alone_useless = np.zeros_like(cost, bool)
    alone_useless[-1] = distance[-1] < SHORTEST_PUSH
    cost = np.where(open_contact & ~alone_useless, cost, np.inf)

    # Best of each pair of faces; "no first push" counts as a face of its own.
    pairs = len(_FACES) + 1
    first_face = np.append(np.repeat(_GRID_FACE, distances), pairs - 1)
    pair = first_face[:, None] * len(_FACES) + _GRID_FACE
    order = np.argsort(cost, axis=None)[:4000]
    _, where = np.unique(pair.reshape(-1)[order], return_index=True)
    chosen = order[np.sort(where)][:_REFINED_PLANS]
    row, second = np.divmod(chosen, count)
    alone = row == count * distances
    first = np.where(alone, second, np.minimum(row // distances, count - 1))
    return Plans(
        face=np.stack([_GRID_FACE[first], _GRID_FACE[second]], -1),
        s=np.stack([_GRID_S[first], _GRID_S[second]], -1),
        distance=np.stack(
            [np.where(alone, 0.0, _PUSH_DISTANCES[row % distances]), distance[row, second]], -1
        ),
    )


def _residual(pose: np.ndarray, plans: Plans) -> np.ndarray:
    """(K, 3) weighted motion still missing to the goal when the plans are done."""
    after = pose
    for push in range(2):
        twist = _twist(plans.face[:, push], plans.s[:, push])
        after = _moved(after, twist * plans.distance[:, push, None])
    return _motion_to_goal(after) * _WEIGHT


def _refined(pose: np.ndarray, plans: Plans, iterations: int = 5) -> Plans:
    """Slide places and distances to where the plans end at the goal (damped Gauss-Newton)."""
    low = np.concatenate([_LOW[plans.face], np.zeros_like(plans.distance)], -1)
    high = np.concatenate([_HIGH[plans.face], np.full_like(plans.distance, _LONGEST_PUSH)], -1)
    alone = plans.distance[:, 0] == 0
    movable = np.ones((len(alone), 4))
    movable[alone, 0] = movable[alone, 2] = 0
    values = np.concatenate([plans.s, plans.distance], -1)
    step = 0.05
    for _ in range(iterations):
        # One batch: the plans themselves, then the plans with each parameter nudged.
        nudged = values[None] + step * np.eye(5, 4, -1)[:, None]
        batch = Plans(
            np.tile(plans.face, (5, 1)),
            nudged[..., :2].reshape(-1, 2),
            nudged[..., 2:].reshape(-1, 2),
        )
        residual = _residual(pose, batch).reshape(5, -1, 3)
        jacobian = ((residual[1:] - residual[0]) / step).transpose(1, 2, 0) * movable[:, None]
        gram = jacobian @ jacobian.transpose(0, 2, 1) + 1e-2 * np.eye(3)
        change = np.linalg.solve(gram, residual[0][..., None])
        change = -(jacobian.transpose(0, 2, 1) @ change)[..., 0]
        moved = values + np.clip(change, -25, 25)
        values = np.clip(moved, low, high)
        movable = movable * np.where(values == moved, 1.0, 0.0) if _ < 2 else movable
    return Plans(plans.face, values[:, :2], values[:, 2:])


def _cost(pose: np.ndarray, agent: np.ndarray, plans: Plans, usable: np.ndarray) -> np.ndarray:
    """Expected steps (K,) of ``plans`` from the block's ``pose`` and the ``agent`` (local)."""
    alone = plans.distance[:, 0] == 0
    travel = _lengths_from(agent, plans.face[:, 0], plans.s[:, 0], usable)
    grid = [
        np.abs(_GRID_S - plans.s[:, push, None]) + 1e6 * (_GRID_FACE != plans.face[:, push, None])
        for push in range(2)
    ]
    link = _GRID_LENGTH[grid[0].argmin(-1), grid[1].argmin(-1)]
    same = plans.face[:, 0] == plans.face[:, 1]
    link = np.where(same, np.abs(plans.s[:, 0] - plans.s[:, 1]), link)
    between = np.where(alone, 0.0, link / (TRAVEL_LEAD * SPEED_PER_LEAD) + PUSH_OVERHEAD)
    steps = (
        travel / (TRAVEL_LEAD * SPEED_PER_LEAD)
        + between
        + plans.distance.sum(-1) / (PUSH_LEAD * SPEED_PER_LEAD)
        + PUSH_OVERHEAD
        + _miss_cost(_residual(pose, plans))
    )
    return np.where(plans.distance.sum(-1) < SHORTEST_PUSH, np.inf, steps)


# -- the controller ----------------------------------------------------------------------------


class ScriptedExpert:
    """Maps PushT states to target positions of the agent."""

    def __init__(self) -> None:
        self._plan: Plans | None = None

    def reset(self) -> None:
        """Forget the plan; call at the start of an episode."""
        self._plan = None

    def action(self, state: np.ndarray) -> np.ndarray:
        """Target position (2,) of the agent, in [0, 512], for ``state`` (5,)."""
        pose = _cog_pose(*(float(value) for value in state[2:]))
        agent = _to_local(np.asarray(state[:2], float), pose)
        self._plan = self._decide(pose, agent)
        return np.clip(self._follow(pose, agent, self._plan), 0, WORLD_SIZE)

    def _decide(self, pose: np.ndarray, agent: np.ndarray) -> Plans:
        usable = _inside(_to_world(_WAYPOINTS, pose), 1.0)
        travel = _lengths_from(agent, _GRID_FACE, _GRID_S, usable)
        fresh = _refined(pose, _search(pose, travel))
        cost = _cost(pose, agent, fresh, usable)
        best = fresh[[int(cost.argmin())]]
        if self._plan is not None:
            kept = _refined(pose, _started(self._plan))
            if _cost(pose, agent, kept, usable)[0] < cost.min() + SWITCH_MARGIN:
                best = kept
        return _started(best)

    def _follow(self, pose: np.ndarray, agent: np.ndarray, plan: Plans) -> np.ndarray:
        """The point one lead ahead on the way to the contact and through the push."""
        push = 0 if plan.distance[0, 0] > 0 else 1
        face, s = plan.face[0, push], plan.s[0, push]
        usable = _inside(_to_world(_WAYPOINTS, pose), 1.0)
        way = _to_world(np.array(_route(agent, int(face), float(s), usable)), pose)
        budget = 1.0
        for here, there in zip(way[:-1], way[1:], strict=True):
            length = float(np.linalg.norm(there - here)) / TRAVEL_LEAD
            if length >= budget:
                return here + (there - here) * (budget / length)
            budget -= length
        advance = min(budget * PUSH_LEAD, plan.distance[0, push])
        pushed = _moved(pose, _twist(face, s) * advance)
        return _to_world(_contact(face, s), pushed)


def _started(plan: Plans) -> Plans:
    """``plan`` without a first push that is as good as done."""
    if plan.distance[0, 0] < 1.0:
        return Plans(
            np.repeat(plan.face[:, 1:], 2, 1),
            np.repeat(plan.s[:, 1:], 2, 1),
            np.array([[0.0, plan.distance[0, 1]]]),
        )
    return plan
