"""The contract of recorded episodes, whatever holds them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from diffusion_policy.dataset.array_cache import content_hash, read_ahead
from diffusion_policy.dataset.stores.checks import check_finite, is_text
from diffusion_policy.dataset.video.segment import VideoSegment
from diffusion_policy.spec.task_spec import Field
from diffusion_policy.util.errors import UserError

TASK = "task"
"""The text observation of what the robot was told to do, which may change in an episode."""
_BLOCK = 256  # depth images checked at a time


@dataclass(frozen=True)
class EpisodeInfo:
    """What is known of one recorded episode as a whole.

    Attributes:
        initial_state: of the simulator it was recorded in, (S,); None where there is none.
        task: what the robot was told to do; None where nobody said.
        source: where the episode comes from, for messages.
    """

    initial_state: np.ndarray | None = None
    task: str | None = None
    source: str = ""


class EpisodeStore(ABC):
    """E episodes of N steps in all, end to end, read by key and step.

    A store whose values are expensive to read overrides :meth:`prepare` to decode or cache them.
    """

    @property
    @abstractmethod
    def episode_ends(self) -> np.ndarray:
        """Cumulative step counts (E,) int64: episode i is steps ends[i-1] (first 0) to ends[i]."""

    @property
    @abstractmethod
    def features(self) -> Mapping[str, Field]:
        """What is recorded of each step, by key; the action among them."""

    @property
    def fps(self) -> float | None:
        """Recorded steps per second; None where unknown."""
        return None

    @property
    def embodiment(self) -> str | None:
        """Name of the robot that was recorded; None where nobody said."""
        return None

    @property
    def names(self) -> Mapping[str, Any]:
        """Names of the numbers of vectors, such as those of motors, by key; as far as known."""
        return {}

    @property
    def left_out(self) -> Mapping[str, str]:
        """What is recorded but cannot be read, by key, and why."""
        return {}

    @property
    def n_steps(self) -> int:
        """Number of steps N."""
        return int(self.episode_ends[-1]) if len(self.episode_ends) else 0

    def scale(self, key: str, height: int, width: int) -> bool:
        """Ask, before :meth:`prepare`, for images of another size than was recorded.

        Returns:
            Whether :meth:`read` gives them so, scaled as :func:`resized` does.
        """
        return False

    def prepare(self, fields: Mapping[str, Field]) -> None:
        """Get ready to read these keys as these fields; called before training starts.

        Raises:
            UserError: a key is missing, what is recorded does not fit its field, or depth is not
                finite.
        """
        for key, field in fields.items():
            require_feature(self.features, key, field)
            if field.type == "depth":
                for first in range(0, self.n_steps, _BLOCK):
                    steps = np.arange(first, min(first + _BLOCK, self.n_steps))
                    check_finite(np.asarray(self.read(key, steps)), key, self.episode_ends, first)

    def fingerprint(self, fields: Mapping[str, Field]) -> str:
        """16 hex digits over the episode ends and the vectors and texts among these keys.

        It is the same wherever and however the episodes are stored. Images are left out, because
        reading all of them takes long.
        """
        steps = np.arange(self.n_steps)
        kept = (key for key in sorted(fields) if fields[key].type in ("low_dim", "text"))
        recorded = (self.read(key, steps) for key in kept)
        return content_hash(
            [self.episode_ends, *(_as_bytes(r) if isinstance(r, list) else r for r in recorded)]
        )

    @abstractmethod
    def read(self, key: str, steps: np.ndarray) -> np.ndarray | list[str]:
        """Values of ``key`` at any steps in any order.

        Args:
            steps: whole numbers of 0..N-1, of any shape; (B,) for a text.

        Returns:
            A new array (*steps.shape, *shape): rgb is uint8 (3, H, W), depth float32 metres
            (1, H, W), low_dim float32. A text is a list of B strings.
        """

    def read_recorded(self, key: str, steps: np.ndarray) -> np.ndarray | list[str]:
        """Values of ``key`` as they were recorded, to be written elsewhere without loss.

        Like :meth:`read`, but numbers may have any type, images be (H, W, 3), and depth be uint16
        millimetres.

        Args:
            steps: whole numbers of 0..N-1, (B,).
        """
        return self.read(key, steps)

    def episode(self, i: int) -> EpisodeInfo:
        """What is known of episode ``i``."""
        return EpisodeInfo(source=f"episode {i}")

    def video(self, key: str, episode: int) -> VideoSegment | None:
        """Where the images of an episode lie, encoded; None where they are no video."""
        return None


def _as_bytes(texts: list[str]) -> bytes:
    return json.dumps(texts).encode()


def read_rows(array: np.ndarray, steps: np.ndarray) -> np.ndarray | list[str]:
    """Rows ``steps`` of an array in memory or in a mapped file; of an array of texts, a list."""
    if is_text(array.dtype):
        return [str(text) for text in array[steps]]
    read_ahead(array, steps)
    return array[steps]


def feature_of(array: np.ndarray | zarr.Array) -> Field:
    """What the array (N, ...) of a key seems to hold, by its type and shape.

    uint8 (N, 3, H, W) and (N, H, W, 3) are images, uint16 (N, 1, H, W) and (N, H, W) depth images.
    """
    shape = tuple(array.shape[1:])
    if is_text(array.dtype):
        return Field((), "text", "TEXT")
    if array.dtype == np.uint8 and len(shape) == 3 and 3 in (shape[0], shape[-1]):
        return Field(shape if shape[0] == 3 else (3, *shape[:2]), "rgb", "VISUAL")
    if array.dtype == np.uint16 and len(shape) in (2, 3) and (len(shape) == 2 or shape[0] == 1):
        return Field((1, *shape[-2:]), "depth", "DEPTH")
    return Field(shape or (1,))


def require_feature(features: Mapping[str, Field], key: str, field: Field) -> None:
    """Check that ``key`` can be read as ``field``; axes of a low-dim value may be flattened.

    Raises:
        UserError: the key is missing, or its type or shape differs.
    """
    require_key(features, key)
    found = features[key]
    same_shape = found.size == field.size if field.type == "low_dim" else found.shape == field.shape
    if found.type != field.type or not same_shape:
        raise mismatch(key, field, f"{found.type} {list(found.shape)}")


def require_key(features: Mapping[str, Field], key: str) -> None:
    """Check that there is ``key``.

    Raises:
        UserError: there is not.
    """
    if key not in features:
        raise UserError(
            f"the data set has no {key!r}, only {', '.join(sorted(features))}; point "
            "task.dataset.path at data of this task or change shape_meta"
        )


def mismatch(key: str, field: Field, found: str) -> UserError:
    """The error of a key that cannot be read as ``field``."""
    entry = "action" if key == "action" else f"obs.{key}"
    return UserError(
        f"shape_meta.{entry} has shape {list(field.shape)} but the data set holds {found} a step; "
        "correct shape_meta or the data set"
    )
