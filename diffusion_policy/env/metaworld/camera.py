"""Pictures of a MuJoCo world, without a display."""

from __future__ import annotations

import importlib
import os
from contextlib import suppress
from typing import Any

import numpy as np

from diffusion_policy.util.errors import UserError, one_line


def prepare_drawing() -> None:
    """Choose how MuJoCo draws, unless MUJOCO_GL says, and let a later import of torch be safe.

    Call it before MuJoCo is imported.
    """
    os.environ.setdefault("MUJOCO_GL", "egl")
    # Mesa and Triton, which torch's optimisers and torchvision load, each bring an LLVM. If Triton
    # comes second, the process dies of a segmentation fault.
    with suppress(ImportError):  # without Triton there is nothing that could come second
        importlib.import_module("triton._C.libtriton")


def simplify_lights(model: Any) -> None:
    """Draw without shadows, reflections and smoothing: in a quarter of the time.

    Args:
        model: an ``MjModel``.
    """
    model.light_castshadow[:] = 0
    model.mat_reflectance[:] = 0
    model.vis.quality.offsamples = 0


class Camera:
    """One camera of a MuJoCo world.

    Args:
        model: an ``MjModel``, which must have its final lights.
        name: of the camera.
        size: side of the pictures in pixels.
        upside_down: turn pictures by 180 degrees, for a camera that hangs upside down.

    Raises:
        UserError: nothing can be drawn on this machine.
    """

    def __init__(self, model: Any, name: str, size: int, *, upside_down: bool = False) -> None:
        import mujoco

        self.name = name
        self.upside_down = upside_down
        try:
            self._renderer = mujoco.Renderer(model, size, size)
        except (mujoco.FatalError, RuntimeError, ImportError, AttributeError) as error:
            backend = os.environ.get("MUJOCO_GL")
            raise UserError(
                f"MuJoCo cannot draw with MUJOCO_GL={backend} ({one_line(error)[:120]}); set it "
                "before the process starts, and install libegl1 and libegl-mesa0 for egl, or "
                "libosmesa6 for osmesa"
            ) from error

    def take(self, data: Any) -> np.ndarray:
        """(size, size, 3) uint8 picture of the state in an ``MjData``."""
        self._renderer.update_scene(data, camera=self.name)
        picture = self._renderer.render()
        return np.ascontiguousarray(picture[::-1, ::-1]) if self.upside_down else picture

    def close(self) -> None:
        """Free what the graphics library holds."""
        self._renderer.close()
