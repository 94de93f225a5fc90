"""A scripted expert that pushes the puck in a straight line.

Meta-World's own expert grasps the puck. With fingers that stay closed it solves none of 12 starts.
"""

from __future__ import annotations

import numpy as np

# Metres, but for the gain.
STAND_OFF = 0.07  # from the puck to where a push begins
PUSH_HEIGHT, TRAVEL_HEIGHT = 0.05, 0.12
LOW = PUSH_HEIGHT + 0.02  # the gripper touches the puck below it
ALIGNED, STILL_ALIGNED = 0.012, 0.03  # from the line of the push, before and during it
GAIN = 10.0  # an action of 1 for each 0.1 m of error


def push_action(gripper: np.ndarray, puck: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """(3,) action in [-1, 1] from the places (3,) of gripper, puck and goal, in metres.

    The gripper goes above a place behind the puck, down to it, and along the line to the goal. It
    depends on places alone, so it recovers from whatever happens.
    """
    line = (goal - puck)[:2]
    line = line / max(float(np.linalg.norm(line)), 1e-9)
    aside = np.array([-line[1], line[0]])
    offset = (gripper - puck)[:2]
    along, off_line = float(offset @ line), float(offset @ aside)
    start = puck[:2] - STAND_OFF * line
    if gripper[2] < LOW and along < -0.01 and abs(off_line) < STILL_ALIGNED:
        place, height = gripper[:2] + 0.1 * line - off_line * aside, PUSH_HEIGHT
    elif along < 0.02 - STAND_OFF and abs(off_line) < ALIGNED:
        place, height = start, PUSH_HEIGHT
    elif gripper[2] < TRAVEL_HEIGHT - 0.02 and np.linalg.norm(offset) < STAND_OFF + 0.02:
        place, height = gripper[:2], TRAVEL_HEIGHT + 0.02  # up, not through the puck
    else:
        place, height = start, TRAVEL_HEIGHT
    return np.clip(GAIN * (np.append(place, height) - gripper), -1, 1)
