"""Actions in absolute terms, relative to the current pose, or as steps from one to the next.

================  ==================================  ==============================================
frame             vector                              pose
================  ==================================  ==============================================
``absolute``      ``x[k]``                            ``X[k]``, a rigid transform
``relative``      ``x[k] - now``                      ``NOW^-1 X[k]``: the pose as seen from now's
``delta``         ``x[k] - x[k-1]``                   ``X[k-1]^-1 X[k]``
================  ==================================  ==============================================

``now`` is what is observed at the current time step, the same for all actions of a chunk. The first
delta from the current step on starts from ``now``, the delta just before the current step ends
there, and those further in the past run from one action to the next; so every chunk of T actions
has T deltas, and can be built again from ``now``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from diffusion_policy.spec.batch import Batch
from diffusion_policy.spec.task_spec import ROTATIONS, TaskSpec
from diffusion_policy.transforms.parts import find_part, with_part
from diffusion_policy.transforms.rotation import matrix_to, rotation_matrix
from diffusion_policy.transforms.transform import Obs, Transform, action_now, obs_now
from diffusion_policy.util.errors import UserError

FRAMES = ("absolute", "relative", "delta")


@dataclass(frozen=True)
class Observed:
    """An observation, or a part of one."""

    key: str
    part: str | None = None

    @classmethod
    def parse(cls, entry: Observed | Mapping[str, str] | str) -> Observed:
        """From ``{key, part}``, or the key alone."""
        if isinstance(entry, Observed):
            return entry
        return cls(**entry) if isinstance(entry, Mapping) else cls(entry)

    def read(self, obs: Obs, spec: TaskSpec, step: int) -> np.ndarray:
        """Its numbers (B, n) at one time step, in float64."""
        _, where = find_part(spec, self.key, self.part)
        return np.asarray(obs[self.key][:, step, where], dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class _ActionFrame(Transform):
    """Takes a part of the action from one frame to another.

    ``_read``, ``_write`` and ``_now`` translate to and from elements of a group, in which
    ``_compose`` adds up and ``_inverse`` negates: vectors or rigid transforms.

    Attributes:
        source: frame in which actions are recorded and commanded, see the table above.
        target: frame in which the policy predicts them.
    """

    source: str = "absolute"
    target: str = "relative"

    def __post_init__(self) -> None:
        for name in ("source", "target"):
            if getattr(self, name) not in FRAMES:
                raise UserError(
                    f"{type(self).__name__}.{name} is {getattr(self, name)!r}; "
                    f"use one of {', '.join(FRAMES)}"
                )
        if self.source == "relative":
            raise UserError(
                f"{type(self).__name__}.source is 'relative', but a recorded action has no chunk "
                "whose first observation it could be relative to; use absolute or delta"
            )

    @property
    def reads_obs(self) -> bool:
        return True

    @property
    def chains_actions(self) -> bool:
        return "delta" in (self.source, self.target)

    def forward(self, batch: Batch, spec: TaskSpec) -> Batch:
        if "action" not in batch:
            return batch
        now = self._now(batch["obs"], spec, obs_now(batch))
        return {
            **batch,
            "action": self._convert(
                batch["action"], now, action_now(batch), spec, self.source, self.target
            ),
        }

    def inverse(self, action: np.ndarray, obs: Obs, spec: TaskSpec) -> np.ndarray:
        now = self._now(obs, spec, -1)
        return self._convert(action, now, 0, spec, self.target, self.source)

    def _convert(
        self,
        action: np.ndarray,
        now: np.ndarray,
        current: int,
        spec: TaskSpec,
        source: str,
        target: str,
    ) -> np.ndarray:
        elements = self._read(np.asarray(action, dtype=np.float64), spec)
        if source == "relative":
            elements = self._compose(now[:, None], elements)
        elif source == "delta":
            elements = self._follow(elements, now, current)
        if target == "relative":
            elements = self._compose(self._inverse(now)[:, None], elements)
        elif target == "delta":
            chain = np.insert(elements, current, now, axis=1)
            elements = self._compose(self._inverse(chain[:, :-1]), chain[:, 1:])
        return self._write(action, elements, spec)

    def _follow(self, steps: np.ndarray, now: np.ndarray, current: int) -> np.ndarray:
        """Absolute elements (B, T, ...): the steps, taken forwards and backwards from ``now``."""
        elements = np.empty_like(steps)
        here = now
        for k in range(current, steps.shape[1]):
            here = elements[:, k] = self._compose(here, steps[:, k])
        here = now
        for k in reversed(range(current)):
            here = elements[:, k] = self._compose(here, self._inverse(steps[:, k]))
        return elements

    @abstractmethod
    def _now(self, obs: Obs, spec: TaskSpec, step: int) -> np.ndarray:
        """(B, ...) elements observed at a time step."""

    @abstractmethod
    def _read(self, action: np.ndarray, spec: TaskSpec) -> np.ndarray:
        """(B, T, ...) elements of the action."""

    @abstractmethod
    def _write(self, action: np.ndarray, elements: np.ndarray, spec: TaskSpec) -> np.ndarray:
        """A float32 copy of the action with these elements."""

    @abstractmethod
    def _compose(self, first: np.ndarray, second: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def _inverse(self, elements: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True)
class VectorFrame(_ActionFrame):
    """For joints, positions and whatever else is subtracted number by number.

    Attributes:
        part: of the action; None is all of it.
        now: observation of the same numbers: a key, or ``{key, part}``.
    """

    now: Observed
    part: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "now", Observed.parse(self.now))

    def spec(self, spec: TaskSpec) -> TaskSpec:
        part, _ = find_part(spec, "action", self.part)
        _require_size(spec, self.now, part.size, f"part {part.name!r} of the action")
        return with_part(spec, "action", self.part, limits=None)

    def _now(self, obs: Obs, spec: TaskSpec, step: int) -> np.ndarray:
        return self.now.read(obs, spec, step)

    def _read(self, action: np.ndarray, spec: TaskSpec) -> np.ndarray:
        return action[..., find_part(spec, "action", self.part)[1]]

    def _write(self, action: np.ndarray, elements: np.ndarray, spec: TaskSpec) -> np.ndarray:
        written = np.array(action, dtype=np.float32)
        written[..., find_part(spec, "action", self.part)[1]] = elements
        return written

    def _compose(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return first + second

    def _inverse(self, elements: np.ndarray) -> np.ndarray:
        return -elements


@dataclass(frozen=True, kw_only=True)
class PoseFrame(_ActionFrame):
    """For a position and a rotation that belong together, in metres and any representation.

    Attributes:
        position: part of the action.
        rotation: part of the action.
        now_position: observation of the current position: a key, or ``{key, part}``.
        now_rotation: observation of the current rotation, in any representation.
    """

    position: str = "position"
    rotation: str = "rotation"
    now_position: Observed
    now_rotation: Observed

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("now_position", "now_rotation"):
            object.__setattr__(self, name, Observed.parse(getattr(self, name)))

    def spec(self, spec: TaskSpec) -> TaskSpec:
        position, _ = find_part(spec, "action", self.position)
        if position.size != 3:
            raise UserError(
                f"part {self.position!r} of the action has {position.size} numbers; PoseFrame "
                "needs a position of 3"
            )
        _require_size(spec, self.now_position, 3, f"part {self.position!r} of the action")
        for key, part in (
            ("action", self.rotation),
            (self.now_rotation.key, self.now_rotation.part),
        ):
            representation = find_part(spec, key, part)[0].representation
            if representation not in ROTATIONS:
                raise UserError(
                    f"part {part!r} of {key!r} is {representation!r}; PoseFrame needs a rotation: "
                    f"one of {', '.join(ROTATIONS)}"
                )
        return with_part(spec, "action", self.position, limits=None)

    def _now(self, obs: Obs, spec: TaskSpec, step: int) -> np.ndarray:
        rotation, _ = find_part(spec, self.now_rotation.key, self.now_rotation.part)
        return _rigid(
            self.now_position.read(obs, spec, step),
            self.now_rotation.read(obs, spec, step),
            rotation.representation,
        )

    def _read(self, action: np.ndarray, spec: TaskSpec) -> np.ndarray:
        rotation, where = find_part(spec, "action", self.rotation)
        position = action[..., find_part(spec, "action", self.position)[1]]
        return _rigid(position, action[..., where], rotation.representation)

    def _write(self, action: np.ndarray, elements: np.ndarray, spec: TaskSpec) -> np.ndarray:
        rotation, where = find_part(spec, "action", self.rotation)
        written = np.array(action, dtype=np.float32)
        written[..., find_part(spec, "action", self.position)[1]] = elements[..., :3, 3]
        written[..., where] = matrix_to(elements[..., :3, :3], rotation.representation)
        return written

    def _compose(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return first @ second

    def _inverse(self, elements: np.ndarray) -> np.ndarray:
        turned_back = elements[..., :3, :3].swapaxes(-1, -2)
        inverse = np.zeros_like(elements)
        inverse[..., :3, :3] = turned_back
        inverse[..., :3, 3:] = -turned_back @ elements[..., :3, 3:]
        inverse[..., 3, 3] = 1
        return inverse


def _rigid(position: np.ndarray, rotation: np.ndarray, representation: str) -> np.ndarray:
    """Homogeneous matrices (..., 4, 4)."""
    rigid = np.zeros((*position.shape[:-1], 4, 4))
    rigid[..., :3, :3] = rotation_matrix(rotation, representation)
    rigid[..., :3, 3] = position
    rigid[..., 3, 3] = 1
    return rigid


def _require_size(spec: TaskSpec, observed: Observed, size: int, like: str) -> None:
    part, _ = find_part(spec, observed.key, observed.part)
    if part.size != size:
        raise UserError(
            f"observation {observed.key!r} gives {part.size} numbers for {like}, which has {size}; "
            "name an observation of the same numbers"
        )
