"""What a task observes and commands: names, shapes and kinds, checked once at start-up."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from diffusion_policy.util.config import shown
from diffusion_policy.util.errors import UserError

MODALITIES = {
    "rgb": ("VISUAL",),
    "depth": ("DEPTH",),
    "low_dim": ("STATE", "ENV"),
    "text": ("TEXT",),
}
"""The modalities that an observation of each type may have, the default first."""
TYPES = tuple(MODALITIES)
NORMALIZATIONS = ("MIN_MAX", "MEAN_STD", "QUANTILE", "IDENTITY")
ROTATIONS = {
    "rotation_6d": 6,  # the first two rows of the matrix
    "axis_angle": 3,  # radians
    "matrix": 9,  # row by row
    "quaternion": 4,  # x, y, z, w
    "quaternion_wxyz": 4,
    "euler_XYZ": 3,  # radians; capitals turn about the axes of the body, as in scipy
    "euler_ZYX": 3,
    "euler_xyz": 3,  # about those of the world: roll, pitch, yaw
}
"""Representations of a rotation; ``transforms/rotation.py`` converts them."""
REPRESENTATIONS = {
    "raw": None,
    "position": None,
    **ROTATIONS,
    "gripper": None,
    "joint": None,
}
"""What the numbers of a part mean, and how many numbers that takes; None for any number."""
_LEFT_ALONE = (*ROTATIONS, "gripper")
# Entries of the ancestor's real-robot configs. The policy's Window decides the time steps, and
# transforms change representations.
_IGNORED = ("horizon", "latency_steps", "down_sample_steps", "raw_shape")

Limits = tuple[Any, ...]
"""(low, high), or one such pair per number. OmegaConf, which Hydra passes dataclasses through, has
no narrower type for both."""


@dataclass(frozen=True)
class Part:
    """Consecutive numbers of a vector that belong together.

    Attributes:
        name: unique within the vector.
        size: how many numbers.
        representation: one of :data:`REPRESENTATIONS`.
        normalization: one of :data:`NORMALIZATIONS`. None is IDENTITY for rotations and grippers
            without limits, and the policy's choice for the modality otherwise.
        limits: (low, high) of the raw values, or one such pair per number; None takes them from
            the data.
    """

    name: str
    size: int
    representation: str = "raw"
    normalization: str | None = None
    limits: Limits | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "limits", _tuples(self.limits))


@dataclass(frozen=True)
class Field:
    """One observation or the action.

    Attributes:
        shape: of one time step. Images are (3, H, W), depth images (1, H, W), a text is ().
        type: ``rgb`` (uint8, 0..255), ``depth`` (float32 metres, 0 where nothing was measured),
            ``low_dim`` (float32, raw units) or ``text`` (str).
        modality: decides the normalization mode. rgb fields are VISUAL, depth fields DEPTH, texts
            TEXT, the action ACTION; low-dim fields are STATE (the robot's own) or ENV (of the
            world around it).
        limits: (low, high) of the raw values, or one such pair per number; None takes them from
            the data.
        parts: of a vector; their sizes add up to its length. () is one part of raw numbers.
    """

    shape: tuple[int, ...]
    type: str = "low_dim"
    modality: str = "STATE"
    limits: Limits | None = None
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        # Hydra hands lists over.
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "parts", tuple(self.parts))
        object.__setattr__(self, "limits", _tuples(self.limits))

    @property
    def size(self) -> int:
        """Numbers of one time step."""
        return math.prod(self.shape)

    def normalized_parts(self, modes: Mapping[str, str]) -> tuple[Part, ...]:
        """The parts, each with its normalization mode.

        Args:
            modes: by modality; a modality that is missing has MIN_MAX.
        """
        mode = modes.get(self.modality, "MIN_MAX")
        parts = self.parts or (Part("all", self.size, limits=self.limits),)
        return tuple(
            replace(part, normalization=part.normalization or _default_mode(part, mode))
            for part in parts
        )


def _default_mode(part: Part, mode: str) -> str:
    return "IDENTITY" if part.representation in _LEFT_ALONE and part.limits is None else mode


@dataclass(frozen=True)
class TaskSpec:
    """The parsed ``shape_meta`` of a task; ``obs`` keeps the order of the config.

    Attributes:
        obs: what is observed, by name.
        action: what is commanded.
        fps: control steps per second; None where unknown.
        embodiment: name of the robot that observes and acts; None where only one exists.
    """

    obs: dict[str, Field]
    action: Field
    fps: float | None = None
    embodiment: str | None = None

    @classmethod
    def parse(
        cls,
        config: Mapping[str, Any] | TaskSpec,
        fps: float | None = None,
        embodiment: str | None = None,
    ) -> TaskSpec:
        """Read ``{obs: {key: entry}, action: entry}``; a TaskSpec passes through.

        An entry is ``{shape, type, modality, limits, parts}``, where parts is a list of
        ``{name, size, representation, normalization, limits}``. Only the shape is required, and a
        text does not need it. Of the ancestor's real-robot entries, ``rotation_rep`` is the
        representation of a vector that is one rotation; ``horizon``, ``latency_steps``,
        ``down_sample_steps`` and ``raw_shape`` are ignored with a warning.

        Args:
            fps: replaces that of a TaskSpec unless None.
            embodiment: likewise.

        Raises:
            UserError: an entry has no or an impossible shape, an unknown key or type, a modality
                that its type cannot have, parts that do not fill the vector, or limits that are
                not a low and a high number; or fps or embodiment is impossible.
        """
        if not isinstance(config, TaskSpec):
            for section in ("obs", "action"):
                if section not in config:
                    raise UserError(f"shape_meta has no {section!r}; give it obs and action")
            obs = {key: _field(f"obs.{key}", entry) for key, entry in config["obs"].items()}
            if "action" in obs:  # what is normalised, transformed and read goes by its name
                raise UserError("shape_meta.obs has an 'action'; give the observation another name")
            # A TaskSpec that went through Hydra is a mapping with these, too.
            own = {name: config.get(name) for name in ("fps", "embodiment")}
            config = cls(obs, _field("action", config["action"]), **own)
        given: dict[str, Any] = {"fps": _fps(fps), "embodiment": _embodiment(embodiment)}
        return replace(config, **{k: v for k, v in given.items() if v is not None})

    @property
    def fields(self) -> dict[str, Field]:
        """Observations and ``action``, by name."""
        return {**self.obs, "action": self.action}

    def keys_of(self, modality: str) -> list[str]:
        """Observation keys of that modality, in the order of the config."""
        return [key for key, field in self.obs.items() if field.modality == modality]


def _field(name: str, entry: Mapping[str, Any]) -> Field:
    is_action = name == "action"
    name = f"shape_meta.{name}"
    if not isinstance(entry, Mapping):
        raise UserError(f"{name} is {entry!r}; give it a shape, as in {{shape: [2]}}")
    known = ("shape", "type", "modality", "limits", "parts")
    _check_keys(name, entry, known, (*_IGNORED, "rotation_rep"))
    if ignored := [key for key in _IGNORED if key in entry]:
        warnings.warn(f"{name}: {', '.join(ignored)} has no effect here; remove it", stacklevel=4)
    kind = entry.get("type", "low_dim")
    if kind not in TYPES:
        raise UserError(f"{name}.type is {kind!r}; use one of {', '.join(TYPES)}")
    if is_action and kind != "low_dim":
        raise UserError(f"{name}.type is {kind!r}; an action is low_dim")
    allowed = ("ACTION",) if is_action else MODALITIES[kind]
    modality = entry.get("modality", allowed[0])
    if modality not in allowed:
        what = "the action" if is_action else f"a {kind} observation"
        raise UserError(f"{name}.modality is {modality!r}; {what} is {' or '.join(allowed)}")
    shape = _shape(name, kind, entry.get("shape"))
    if is_action and len(shape) != 1:
        raise UserError(f"{name}.shape is {list(shape)}; an action is a vector: use [Da]")
    parts = _parts(name, shape, entry)
    if parts and kind != "low_dim":
        raise UserError(f"{name}.parts are given for a {kind} observation; only low_dim has parts")
    limits = _limits(name, entry.get("limits"), math.prod(shape))
    if limits is not None and parts:
        raise UserError(f"{name} has limits and parts; give each part its own limits")
    return Field(shape, kind, modality, limits, parts)


def _check_keys(
    name: str, entry: Mapping[str, Any], known: tuple[str, ...], also: tuple[str, ...] = ()
) -> None:
    if unknown := set(entry) - {*known, *also}:
        raise UserError(
            f"{name} has unknown key {sorted(unknown)[0]!r}; known are {', '.join(known)}"
        )


def _shape(name: str, kind: str, sizes: Any) -> tuple[int, ...]:
    if kind == "text":
        if sizes is not None and (not _is_list(sizes) or len(sizes)):
            raise UserError(f"{name}.shape is {shown(sizes)}; leave it out, a text has no shape")
        return ()
    if sizes is None:
        raise UserError(f"{name} has no shape; give the shape of one time step")
    if not _is_list(sizes) or not all(isinstance(size, int) and size >= 1 for size in sizes):
        raise UserError(
            f"{name}.shape is {shown(sizes)}; use a list of whole numbers from 1, as in [2]"
        )
    if kind == "rgb" and (len(sizes) != 3 or sizes[0] != 3):
        raise UserError(f"{name}.shape is {list(sizes)}; an rgb key needs [3, H, W]")
    if kind == "depth" and len(sizes) == 2:
        sizes = (1, *sizes)
    if kind == "depth" and (len(sizes) != 3 or sizes[0] != 1):
        raise UserError(f"{name}.shape is {list(sizes)}; a depth key needs [1, H, W] or [H, W]")
    return tuple(sizes)


def _parts(name: str, shape: tuple[int, ...], entry: Mapping[str, Any]) -> tuple[Part, ...]:
    rotation = entry.get("rotation_rep")
    if not entry.get("parts"):
        if rotation in REPRESENTATIONS and shape == (REPRESENTATIONS[rotation],):
            return (Part("rotation", shape[0], rotation),)
        return ()
    entries = entry["parts"]
    if not _is_list(entries) or not all(isinstance(one, Mapping) for one in entries):
        raise UserError(f"{name}.parts is {shown(entries)}; use a list of {{name, size}}")
    parts = tuple(_part(f"{name}.parts[{i}]", one) for i, one in enumerate(entries))
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise UserError(f"{name}.parts are called {names}; give each a name of its own")
    total = sum(part.size for part in parts)
    if shape != (total,):
        raise UserError(
            f"{name}.parts have {total} numbers but its shape is {list(shape)}; make them equal"
        )
    return parts


def _part(name: str, entry: Mapping[str, Any]) -> Part:
    _check_keys(name, entry, tuple(field.name for field in fields(Part)))
    if not isinstance(entry.get("name"), str):
        raise UserError(f"{name}.name is {entry.get('name')!r}; use a word")
    size = entry.get("size")
    if type(size) is not int or size < 1:
        raise UserError(f"{name}.size is {size!r}; use a whole number from 1")
    representation = entry.get("representation", "raw")
    if representation not in REPRESENTATIONS:
        raise UserError(
            f"{name}.representation is {representation!r}; use one of {', '.join(REPRESENTATIONS)}"
        )
    needed = REPRESENTATIONS[representation]
    if needed not in (None, size):
        raise UserError(f"{name}.size is {size}; {representation} has {needed} numbers")
    mode = entry.get("normalization")
    if mode is not None and mode not in NORMALIZATIONS:
        raise UserError(f"{name}.normalization is {mode!r}; use one of {', '.join(NORMALIZATIONS)}")
    limits = _limits(name, entry.get("limits"), size)
    return Part(entry["name"], size, representation, mode, limits)


def _limits(name: str, limits: Any, size: int) -> Limits | None:
    """One pair, or as many pairs as there are numbers."""
    if limits is None:
        return None
    pairs = [limits]
    if _is_list(limits) and len(limits) and all(_is_list(pair) for pair in limits):
        pairs = list(limits)
        if len(pairs) != size:
            raise UserError(
                f"{name}.limits are {len(pairs)} pairs for {size} numbers; use one [low, high], or "
                "one per number"
            )
    if not all(_is_pair(pair) for pair in pairs):
        raise UserError(f"{name}.limits are {shown(limits)}; use [low, high], two numbers")
    checked = tuple((float(low), float(high)) for low, high in pairs)
    return checked[0] if pairs[0] is limits else checked


def _is_pair(pair: Any) -> bool:
    return (
        _is_list(pair)
        and len(pair) == 2
        and all(isinstance(limit, int | float) and math.isfinite(limit) for limit in pair)
        and pair[0] < pair[1]
    )


def _fps(fps: Any) -> float | None:
    if fps is None or (isinstance(fps, int | float) and math.isfinite(fps) and fps > 0):
        return fps
    raise UserError(f"task.fps is {fps!r}; use the control steps per second, a number above 0")


def _embodiment(embodiment: Any) -> str | None:
    # It becomes part of names in a state_dict, where a dot separates.
    if embodiment is None or re.fullmatch(r"[\w-]+", str(embodiment)):
        return embodiment if embodiment is None else str(embodiment)
    raise UserError(f"task.embodiment is {embodiment!r}; use letters, digits, _ and -")


def _tuples(limits: Any) -> Limits | None:
    """Limits with tuples for lists, which Hydra hands over."""
    if limits is None:
        return None
    return tuple(tuple(limit) if _is_list(limit) else limit for limit in limits)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
