"""The agent's ways around the T, from its position to a contact with one of the faces.

Everything is in the block's local frame (see :mod:`pushing`), where the T is always the same union
of two axis-aligned boxes. A way ends with a straight run-up to the contact. Before the run-up it is
straight, or turns at waypoints off the T's six outer corners, where shortest ways turn.
"""

from __future__ import annotations

import numpy as np

from diffusion_policy.env.pusht.block import BAR, STEM
from diffusion_policy.env.pusht.expert.pushing import CLEARANCE, COG, before_face, contact, to_world
from diffusion_policy.env.pusht.simulation import AGENT_RADIUS, WORLD_SIZE

RUN_UP = 18.0
"""Free space between agent and face at the start of the run-up."""

_BOXES = np.array([[np.min(part, 0) - COG, np.max(part, 0) - COG] for part in (BAR, STEM)])
_OUTWARD = np.array([[-1.0], [1.0]])
_BLOCKED = _BOXES + (AGENT_RADIUS + CLEARANCE) * _OUTWARD  # (2 boxes, low/high, xy)


def _waypoints() -> np.ndarray:
    """(6, 2) clockwise from the bar's first corner, at twice the clearance from the T."""
    (bar_low, bar_high), (stem_low, stem_high) = _BOXES + (AGENT_RADIUS + 2 * CLEARANCE) * _OUTWARD
    return np.array(
        [
            bar_low,
            (bar_high[0], bar_low[1]),
            bar_high,
            stem_high,
            (stem_low[0], stem_high[1]),
            (bar_low[0], bar_high[1]),
        ]
    )


def is_free(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Whether straight ways from ``start`` (..., 2) to ``end`` (..., 2) stay clear of the T."""
    start, end = np.broadcast_arrays(start, end)
    span = end - start
    span = np.where(np.abs(span) < 1e-9, 1e-9, span)
    clear = np.ones(start.shape[:-1], bool)
    for low, high in _BLOCKED:
        # The part of the way between the box's vertical lines, and between its horizontal lines.
        first, second = (low - start) / span, (high - start) / span
        enter = np.minimum(first, second).max(-1)
        leave = np.maximum(first, second).min(-1)
        clear &= np.maximum(enter, 0) >= np.minimum(leave, 1)
    return clear


WAYPOINTS = _waypoints()
_LEGS = np.linalg.norm(WAYPOINTS[:, None] - WAYPOINTS, axis=-1)
_LEGS = np.where(is_free(WAYPOINTS[:, None], WAYPOINTS), _LEGS, np.inf)
np.fill_diagonal(_LEGS, np.inf)
"""(6, 6) straight distance between waypoints; infinite if the T is in the way."""


class Routes:
    """Ways of an agent around the block in one state.

    Args:
        agent: (2,) local position of the agent.
        pose: (3,) of the block, to leave out waypoints outside the world; None keeps all.
    """

    def __init__(self, agent: np.ndarray, pose: np.ndarray | None = None) -> None:
        self.agent = agent
        usable = np.ones(len(WAYPOINTS), bool)
        if pose is not None:
            world = to_world(WAYPOINTS, pose)
            usable = np.all((world > 0) & (world < WORLD_SIZE), axis=-1)
        self._start = _nearest_free(agent)
        self._legs = np.where(usable[:, None] & usable, _LEGS, np.inf)
        self._between = _shortest(self._legs)
        first = np.linalg.norm(WAYPOINTS - self._start, axis=-1)
        self._first = np.where(is_free(self._start, WAYPOINTS) & usable, first, np.inf)

    def lengths(self, face: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Length (N,) of the ways to the places ``s`` (N,) of the faces ``face`` (N,)."""
        run_up = contact(face, s, RUN_UP)
        straight = np.linalg.norm(run_up - self._start, axis=-1)
        straight = np.where(is_free(self._start, run_up), straight, np.inf)
        around = self._via(run_up).min((-2, -1))
        length = np.linalg.norm(self._start - self.agent) + np.minimum(straight, around) + RUN_UP
        slide = np.linalg.norm(contact(face, s) - self.agent, axis=-1)
        return np.where(before_face(self.agent, face, RUN_UP + 2), slide, length)

    def way(self, face: int, s: float) -> np.ndarray:
        """Corners (P, 2) of the way from the agent to place ``s`` of ``face``."""
        touch = contact(np.array(face), np.array(s))
        if before_face(self.agent, np.array(face), RUN_UP + 2):
            return np.stack([self.agent, touch])
        run_up = contact(np.array(face), np.array(s), RUN_UP)
        via = self._via(run_up[None])[0]
        turns: list[int] = []
        if not is_free(self._start, run_up) and np.isfinite(via.min()):
            here, last = np.unravel_index(via.argmin(), via.shape)
            turns.append(int(here))
            while turns[-1] != last:
                turns.append(int((self._legs[turns[-1]] + self._between[:, last]).argmin()))
        return np.stack([self.agent, self._start, *WAYPOINTS[turns], run_up, touch])

    def _via(self, ends: np.ndarray) -> np.ndarray:
        """(N, 6, 6) lengths of the ways to ``ends`` (N, 2), by first and last waypoint."""
        last = np.linalg.norm(WAYPOINTS - ends[:, None], axis=-1)
        last = np.where(is_free(WAYPOINTS, ends[:, None]), last, np.inf)
        return self._first[:, None] + self._between + last[:, None, :]


def _nearest_free(agent: np.ndarray) -> np.ndarray:
    """The nearest point clear of the block; the agent itself if it is clear."""
    point = agent.copy()
    for low, high in (*_BLOCKED, _BLOCKED[0]):  # leaving one box may enter the other
        if np.all(low < point) and np.all(point < high):
            depth = np.concatenate([point - low, high - point])
            exit_side = int(depth.argmin())
            point[exit_side % 2] = (low - 1e-3, high + 1e-3)[exit_side // 2][exit_side % 2]
    return point


def _shortest(legs: np.ndarray) -> np.ndarray:
    """All-pairs shortest lengths over ``legs`` (N, N) (Floyd-Warshall)."""
    lengths = legs.copy()
    np.fill_diagonal(lengths, 0)
    for middle in range(len(legs)):
        lengths = np.minimum(lengths, lengths[:, middle, None] + lengths[middle])
    return lengths
