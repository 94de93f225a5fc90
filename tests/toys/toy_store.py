"""A store in one file: two cameras, a vector and a text, computed when they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from diffusion_policy.dataset.stores.episode_store import EpisodeInfo, EpisodeStore, require_key
from diffusion_policy.spec.task_spec import Field

TASKS = ("push the T", "pick the red cube", "open the drawer")
TOY_META = {
    "obs": {
        "left": {"shape": [3, 4, 5], "type": "rgb"},
        "right": {"shape": [3, 4, 5], "type": "rgb"},
        "position": {"shape": [2]},
        "task": {"type": "text"},
    },
    "action": {"shape": [2]},
}


def toy_arrays(lengths: Sequence[int]) -> dict[str, np.ndarray | list[str]]:
    """All that the store below gives, by key, for episodes of these lengths."""
    steps = np.arange(sum(lengths))
    tasks = [TASKS[i % len(TASKS)] for i, n in enumerate(lengths) for _ in range(n)]
    return {
        "left": _image(steps, 1),
        "right": _image(steps, 2),
        "position": _position(steps),
        "task": tasks,
        "action": _position(steps + 1),
    }


def _image(steps: np.ndarray, camera: int) -> np.ndarray:
    pixels = np.arange(60).reshape(3, 4, 5) * camera
    return (steps[..., None, None, None] * 7 + pixels).astype(np.uint8)


def _position(steps: np.ndarray) -> np.ndarray:
    return np.stack([np.sin(steps), np.cos(steps)], axis=-1).astype(np.float32)


class ToyStore(EpisodeStore):
    """Episodes of these lengths, each with a task of its own."""

    def __init__(self, lengths: Sequence[int], fps: float = 20) -> None:
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self._fps = fps

    @property
    def episode_ends(self) -> np.ndarray:
        return self._ends

    @property
    def fps(self) -> float:
        return self._fps

    @property
    def features(self) -> Mapping[str, Field]:
        return {
            "left": Field((3, 4, 5), "rgb", "VISUAL"),
            "right": Field((3, 4, 5), "rgb", "VISUAL"),
            "position": Field((2,)),
            "task": Field((), "text", "TEXT"),
            "action": Field((2,), modality="ACTION"),
        }

    def read(self, key: str, steps: np.ndarray) -> np.ndarray | list[str]:
        require_key(self.features, key)
        if key == "task":
            episodes = np.searchsorted(self._ends, steps, side="right")
            return [TASKS[i % len(TASKS)] for i in episodes]
        if key in ("left", "right"):
            return _image(steps, 1 if key == "left" else 2)
        return _position(steps if key == "position" else steps + 1)

    def episode(self, i: int) -> EpisodeInfo:
        return EpisodeInfo(task=TASKS[i % len(TASKS)], source=f"toy episode {i}")
