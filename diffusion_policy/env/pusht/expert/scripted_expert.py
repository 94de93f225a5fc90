"""A scripted expert for PushT, which plans at most two pushes, anew at every step.

Two pushes have four free parameters (place on a face and distance, twice). A planar pose has three,
so two pushes can take the block from nearly anywhere to the goal. The expert

1. tries a grid of first pushes, each followed by the second push that ends nearest to the goal;
2. refines the parameters of the cheapest plans until the plans end at the goal;
3. follows the plan with the fewest steps: ways around the block, pushes, and the cost of a miss.

The action is a function of the current state and of one memory: the plan of the previous step
competes with the new plans, and a new plan must beat it by a margin. Without the margin the expert
would switch between plans and finish none.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from diffusion_policy.env.pusht.expert.pushing import (
    CORNERS,
    FACE_HIGH,
    FACE_LOW,
    FACES,
    cog_pose,
    contact,
    motion_to_goal,
    moved,
    to_local,
    to_world,
    twist,
)
from diffusion_policy.env.pusht.expert.routes import Routes
from diffusion_policy.env.pusht.simulation import WORLD_SIZE

# Distance of the action from the agent. The agent then covers about 0.4 of it per step.
TRAVEL_LEAD, PUSH_LEAD = 26.0, 15.0
TRAVEL_SPEED, PUSH_SPEED = 0.4 * TRAVEL_LEAD, 0.4 * PUSH_LEAD
FOLLOW_THROUGH = 4.0
"""Least lead during a push, so that the agent does not slow down at its end."""
PUSH_OVERHEAD = 5.0
"""Steps that a push costs beside its way and length, to come to rest."""
SWITCH_MARGIN = 3.0
"""Steps by which a new plan must beat the current one."""
ERROR_WEIGHT = np.array([1.0, 1.0, 50.0])
"""Weights of x, y and angle: the block's radius of gyration is about 50 units."""
# A plan that misses by more than MISS_FREE units may need another push, from MISS_SURE on it does.
MISS_FREE, MISS_SURE = 1.0, 4.0
MISS_STEPS, MISS_STEPS_PER_UNIT = 25.0, 0.4
WALL_MARGIN = 8.0
"""Least distance of the block's corners from the world's edge; the walls lie within it."""

SHORTEST_PUSH, LONGEST_PUSH = 0.5, 300.0
FIRST_DISTANCES = np.array([2.0, 5, 9, 14, 20, 28, 38, 50, 65, 85, 110, 140, 180])
SEARCHED_PLANS, REFINED_PLANS = 1000, 16

# The grid of C contacts that the search tries, and the travel between them.
GRID_FACE = np.repeat(np.arange(len(FACES)), [face.samples for face in FACES])
GRID_S = np.concatenate([np.linspace(face.low, face.high, face.samples) for face in FACES])
GRID_CONTACT = contact(GRID_FACE, GRID_S)
GRID_TWIST = twist(GRID_FACE, GRID_S)
GRID_TRAVEL = np.stack([Routes(start).lengths(GRID_FACE, GRID_S) for start in GRID_CONTACT])


@dataclass(frozen=True)
class Plans:
    """K plans of two pushes; in a plan of one push the first has distance 0.

    Attributes:
        face: (K, 2) index of the pushed face.
        s: (K, 2) place along the face.
        distance: (K, 2) how far the contact advances.
    """

    face: np.ndarray
    s: np.ndarray
    distance: np.ndarray

    def pick(self, index: int) -> Plans:
        """The plan at ``index``, alone."""
        rows = slice(index, index + 1)
        return Plans(self.face[rows], self.s[rows], self.distance[rows])

    def __add__(self, plan: Plans) -> Plans:
        """These plans, followed by ``plan``."""
        return Plans(
            np.concatenate([self.face, plan.face]),
            np.concatenate([self.s, plan.s]),
            np.concatenate([self.distance, plan.distance]),
        )

    @property
    def single(self) -> np.ndarray:
        """(K,) whether the plan has only one push."""
        return self.distance[:, 0] == 0

    def error(self, pose: np.ndarray) -> np.ndarray:
        """(K, 3) weighted motion from the end of each plan to the goal."""
        for push in range(2):
            motion = twist(self.face[:, push], self.s[:, push]) * self.distance[:, push, None]
            pose = moved(pose, motion)
        return motion_to_goal(pose) * ERROR_WEIGHT


class ScriptedExpert:
    """Maps PushT states to actions; call :meth:`reset` between episodes."""

    def __init__(self) -> None:
        self._plan: Plans | None = None

    def reset(self) -> None:
        """Forget the current plan."""
        self._plan = None

    def action(self, state: np.ndarray) -> np.ndarray:
        """Target position (2,) of the agent, in [0, 512], at ``state`` (5,)."""
        pose = cog_pose(*(float(value) for value in state[2:]))
        routes = Routes(to_local(np.asarray(state[:2], float), pose), pose)
        plans = _refined(pose, _search(pose, routes))
        kept = 0
        if self._plan is not None:
            # Also unrefined, because refining can fail where two pushes do not reach the goal.
            kept, plans = 2, plans + self._plan + _refined(pose, self._plan)
        steps = _steps(pose, routes, plans)
        steps[len(steps) - kept :] -= SWITCH_MARGIN
        self._plan = plans.pick(int(steps.argmin()))
        return np.clip(_follow(pose, routes, self._plan), 0, WORLD_SIZE)


def _search(pose: np.ndarray, routes: Routes) -> Plans:
    """The cheapest plans of the grid, cheapest first, at most one per pair of faces."""
    # First pushes: (C * D), and a last row for no first push.
    count, distances = len(GRID_S), len(FIRST_DISTANCES)
    first = np.append(np.repeat(np.arange(count), distances), -1)
    first_distance = np.append(np.tile(FIRST_DISTANCES, count), 0.0)
    after = moved(pose, GRID_TWIST[first] * first_distance[:, None])
    travel = routes.lengths(GRID_FACE, GRID_S)
    steps = (travel / TRAVEL_SPEED)[first] + first_distance / PUSH_SPEED + PUSH_OVERHEAD
    steps = np.where(_in_world(to_world(GRID_CONTACT, pose))[first], steps, np.inf)
    in_walls = _in_world(to_world(CORNERS, after[:, None]), WALL_MARGIN).all(-1)
    steps = np.where(in_walls, steps, np.inf)
    steps[-1] = 0.0

    # Second pushes: (C * D + 1, C). In the space of motions a push is a ray; the best distance is
    # the projection on it.
    missing = motion_to_goal(after) * ERROR_WEIGHT
    ray = GRID_TWIST * ERROR_WEIGHT
    distance = np.clip(missing @ ray.T / (ray**2).sum(-1), 0, LONGEST_PUSH)
    error = missing[:, None] - distance[..., None] * ray
    link = np.concatenate([GRID_TRAVEL[first[:-1]], travel[None]])
    steps = steps[:, None] + link / TRAVEL_SPEED + distance / PUSH_SPEED + PUSH_OVERHEAD
    steps += _steps_after_miss(error)
    steps = np.where(_in_world(to_world(GRID_CONTACT, after[:, None])), steps, np.inf)
    steps[-1, distance[-1] < SHORTEST_PUSH] = np.inf

    pair = np.append(GRID_FACE[first[:-1]], len(FACES))[:, None] * len(FACES) + GRID_FACE
    order = steps.argpartition(SEARCHED_PLANS, axis=None)[:SEARCHED_PLANS]
    order = order[steps.reshape(-1)[order].argsort()]
    _, cheapest = np.unique(pair.reshape(-1)[order], return_index=True)
    row, second = np.divmod(order[np.sort(cheapest)[:REFINED_PLANS]], count)
    one = np.where(first[row] < 0, second, first[row])
    return Plans(
        face=np.stack([GRID_FACE[one], GRID_FACE[second]], -1),
        s=np.stack([GRID_S[one], GRID_S[second]], -1),
        distance=np.stack([first_distance[row], distance[row, second]], -1),
    )


def _refined(pose: np.ndarray, plans: Plans) -> Plans:
    """Change places and distances until the plans end at the goal, as far as the faces allow.

    Damped Gauss-Newton on the error. A parameter that reaches its bound stays there.
    """
    low = np.concatenate([FACE_LOW[plans.face], np.zeros_like(plans.distance)], -1)
    high = np.concatenate([FACE_HIGH[plans.face], np.full_like(plans.distance, LONGEST_PUSH)], -1)
    free = np.ones_like(low)
    free[plans.single] = (0, 1, 0, 1)
    values = np.concatenate([plans.s, plans.distance], -1)
    nudge, damping, longest_change = 0.05, 0.01, 25.0
    for _ in range(5):
        # One batch: the plans, then the plans with each of the four parameters nudged.
        nudged = (values + nudge * np.eye(5, 4, -1)[:, None]).reshape(-1, 4)
        batch = Plans(np.tile(plans.face, (5, 1)), nudged[:, :2], nudged[:, 2:])
        errors = batch.error(pose).reshape(5, -1, 3)
        jacobian = ((errors[1:] - errors[0]) / nudge).transpose(1, 2, 0) * free[:, None]
        transposed = jacobian.transpose(0, 2, 1)
        solved = np.linalg.solve(jacobian @ transposed + damping * np.eye(3), errors[0][..., None])
        change = -(transposed @ solved)[..., 0]
        wanted = values + np.clip(change, -longest_change, longest_change)
        values = np.clip(wanted, low, high)
        free *= values == wanted
    return _without_finished_pushes(Plans(plans.face, values[:, :2], values[:, 2:]))


def _steps(pose: np.ndarray, routes: Routes, plans: Plans) -> np.ndarray:
    """(K,) steps that ``plans`` are expected to take until success."""
    first, second = (_nearest_on_grid(plans.face[:, i], plans.s[:, i]) for i in range(2))
    slide = np.abs(plans.s[:, 0] - plans.s[:, 1])
    link = np.where(plans.face[:, 0] == plans.face[:, 1], slide, GRID_TRAVEL[first, second])
    steps = routes.lengths(plans.face[:, 0], plans.s[:, 0]) / TRAVEL_SPEED + PUSH_OVERHEAD
    steps += np.where(plans.single, 0.0, link / TRAVEL_SPEED + PUSH_OVERHEAD)
    steps += plans.distance.sum(-1) / PUSH_SPEED + _steps_after_miss(plans.error(pose))
    return np.where(plans.distance.sum(-1) < SHORTEST_PUSH, np.inf, steps)


def _follow(pose: np.ndarray, routes: Routes, plan: Plans) -> np.ndarray:
    """The world point (2,) one lead ahead on the way to the contact and along the push."""
    push = 0 if plan.distance[0, 0] > 0 else 1
    face, s, distance = plan.face[0, push], plan.s[0, push], plan.distance[0, push]
    lead = 1.0  # share of the lead that is left
    for here, there in itertools.pairwise(to_world(routes.way(int(face), float(s)), pose)):
        used = float(np.linalg.norm(there - here)) / TRAVEL_LEAD
        if used >= lead:
            return here + (there - here) * (lead / used)
        lead -= used
    pushed = moved(pose, twist(face, s) * min(lead * PUSH_LEAD, distance + FOLLOW_THROUGH))
    return to_world(contact(face, s), pushed)


def _without_finished_pushes(plans: Plans) -> Plans:
    """``plans`` without first pushes that are almost done."""
    finished = plans.distance[:, :1] < 2 * SHORTEST_PUSH
    return Plans(
        np.where(finished, plans.face[:, 1:], plans.face),
        np.where(finished, plans.s[:, 1:], plans.s),
        np.where(finished, plans.distance * (0.0, 1.0), plans.distance),
    )


def _steps_after_miss(error: np.ndarray) -> np.ndarray:
    """Rough number of steps needed after a plan that misses the goal by ``error`` (..., 3)."""
    miss = np.linalg.norm(error, axis=-1)
    likely = np.clip((miss - MISS_FREE) / (MISS_SURE - MISS_FREE), 0, 1)
    return MISS_STEPS * likely + MISS_STEPS_PER_UNIT * miss


def _nearest_on_grid(face: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Index (K,) of the grid's contact nearest to place ``s`` (K,) of ``face`` (K,)."""
    distance = np.where(face[:, None] == GRID_FACE, np.abs(GRID_S - s[:, None]), np.inf)
    return distance.argmin(-1)


def _in_world(points: np.ndarray, margin: float = 2.0) -> np.ndarray:
    """Whether ``points`` (..., 2) are more than ``margin`` inside the world."""
    return np.all((points > margin) & (points < WORLD_SIZE - margin), axis=-1)
