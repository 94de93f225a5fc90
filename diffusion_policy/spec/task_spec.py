"""What a task observes and commands: names, shapes and kinds, checked once at start-up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffusion_policy.util.errors import UserError

MODALITIES = {"rgb": ("VISUAL",), "low_dim": ("STATE", "ENV")}
"""What an observation of each type may be, the default first; the action is ACTION."""
TYPES = tuple(MODALITIES)


@dataclass(frozen=True)
class Field:
    """One observation or the action.

    Attributes:
        shape: of one time step; images are (3, H, W).
        type: ``rgb`` (uint8, 0..255) or ``low_dim`` (float32, raw units).
        modality: which normalisation mode applies. rgb fields are VISUAL, the action is ACTION;
            low-dim fields are STATE (the robot's own) or ENV (of the world around it).
        limits: (low, high) of the raw values, where they are known; else taken from the data.
    """

    shape: tuple[int, ...]
    type: str = "low_dim"
    modality: str = "STATE"
    limits: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        # Hydra hands lists over.
        object.__setattr__(self, "shape", tuple(self.shape))
        if self.limits is not None:
            object.__setattr__(self, "limits", tuple(self.limits))


@dataclass(frozen=True)
class TaskSpec:
    """The parsed ``shape_meta`` of a task; ``obs`` keeps the order of the config."""

    obs: dict[str, Field]
    action: Field

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> TaskSpec:
        """From ``{obs: {key: {shape, type, modality, limits}}, action: {shape, limits}}``.

        Raises:
            UserError: an entry has no or an impossible shape, an unknown key or type, a modality
                that its type cannot have, or limits that are not a low and a high number.
        """
        for part in ("obs", "action"):
            if part not in config:
                raise UserError(f"shape_meta has no {part!r}; give it obs and action")
        obs = {key: _field(f"obs.{key}", entry) for key, entry in config["obs"].items()}
        return cls(obs, _field("action", config["action"]))

    def keys_of(self, modality: str) -> list[str]:
        """Observation keys of that modality, in the order of the config."""
        return [key for key, field in self.obs.items() if field.modality == modality]


def _field(name: str, entry: Mapping[str, Any]) -> Field:
    name = f"shape_meta.{name}"
    if not isinstance(entry, Mapping):
        raise UserError(f"{name} is {entry!r}; give it a shape, as in {{shape: [2]}}")
    unknown = set(entry) - {"shape", "type", "modality", "limits"}
    if unknown:
        raise UserError(
            f"{name} has unknown key {sorted(unknown)[0]!r}; "
            "known are shape, type, modality and limits"
        )
    kind = entry.get("type", "low_dim")
    if kind not in TYPES:
        raise UserError(f"{name}.type is {kind!r}; use one of {', '.join(TYPES)}")
    is_action = name == "shape_meta.action"
    if is_action and kind != "low_dim":
        raise UserError(f"{name}.type is {kind!r}; an action is low_dim")
    allowed = ("ACTION",) if is_action else MODALITIES[kind]
    modality = entry.get("modality", allowed[0])
    if modality not in allowed:
        what = "the action" if is_action else f"a {kind} observation"
        raise UserError(f"{name}.modality is {modality!r}; {what} is {' or '.join(allowed)}")
    shape = _shape(name, entry.get("shape"))
    if is_action and len(shape) != 1:
        raise UserError(f"{name}.shape is {list(shape)}; an action is a vector: use [Da]")
    if kind == "rgb" and (len(shape) != 3 or shape[0] != 3):
        raise UserError(f"{name}.shape is {list(shape)}; an rgb key needs [3, H, W]")
    return Field(shape, kind, modality, _limits(name, entry.get("limits")))


def _shape(name: str, sizes: Any) -> tuple[int, ...]:
    if sizes is None:
        raise UserError(f"{name} has no shape; give the shape of one time step")
    if not _is_list(sizes) or not all(isinstance(size, int) and size >= 1 for size in sizes):
        shown = list(sizes) if _is_list(sizes) else sizes
        raise UserError(f"{name}.shape is {shown!r}; use a list of whole numbers from 1, as in [2]")
    return tuple(sizes)


def _limits(name: str, limits: Any) -> tuple[float, float] | None:
    if limits is None:
        return None
    shown = list(limits) if _is_list(limits) else limits
    if (
        not _is_list(limits)
        or len(limits) != 2
        or not all(isinstance(limit, int | float) and math.isfinite(limit) for limit in limits)
        or not limits[0] < limits[1]
    ):
        raise UserError(f"{name}.limits are {shown!r}; use [low, high], two numbers")
    return float(limits[0]), float(limits[1])


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
