"""What a task observes and commands: names, shapes and kinds, checked once at start-up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusion_policy.common.errors import UserError

TYPES = ("rgb", "low_dim")
MODALITIES = ("VISUAL", "STATE", "ENV", "ACTION")


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


@dataclass(frozen=True)
class ShapeMeta:
    """The parsed ``shape_meta`` of a task; ``obs`` keeps the order of the config."""

    obs: dict[str, Field]
    action: Field

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> ShapeMeta:
        """From ``{obs: {key: {shape, type, modality, limits}}, action: {shape, limits}}``.

        Raises:
            UserError: an entry lacks a shape, or has an unknown key, type or modality.
        """
        for part in ("obs", "action"):
            if part not in config:
                raise UserError(f"shape_meta has no {part!r}; give it obs and action")
        obs = {key: _field(f"obs.{key}", entry) for key, entry in config["obs"].items()}
        return cls(obs, _field("action", config["action"], modality="ACTION"))

    def keys_of(self, modality: str) -> list[str]:
        """Observation keys of that modality, in the order of the config."""
        return [key for key, field in self.obs.items() if field.modality == modality]


def _field(name: str, entry: Mapping[str, Any], modality: str = "STATE") -> Field:
    unknown = set(entry) - {"shape", "type", "modality", "limits"}
    if unknown:
        raise UserError(
            f"shape_meta.{name} has unknown key {sorted(unknown)[0]!r}; "
            "known are shape, type, modality and limits"
        )
    if "shape" not in entry:
        raise UserError(f"shape_meta.{name} has no shape; give the shape of one time step")
    kind = entry.get("type", "low_dim")
    if kind not in TYPES:
        raise UserError(f"shape_meta.{name}.type is {kind!r}; use one of {', '.join(TYPES)}")
    shape = tuple(int(size) for size in entry["shape"])
    if kind == "rgb":
        modality = "VISUAL"
        if len(shape) != 3:
            raise UserError(f"shape_meta.{name}.shape is {list(shape)}; an rgb key needs [3, H, W]")
    modality = entry.get("modality", modality)
    if modality not in MODALITIES:
        raise UserError(
            f"shape_meta.{name}.modality is {modality!r}; use one of {', '.join(MODALITIES)}"
        )
    limits = entry.get("limits")
    if limits is not None:
        low, high = (float(limit) for limit in limits)
        if not low < high:
            raise UserError(f"shape_meta.{name}.limits are [{low}, {high}]; use [low, high]")
        limits = (low, high)
    return Field(shape, kind, modality, limits)
