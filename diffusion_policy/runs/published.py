"""Published scores of a benchmark. They lie beside its task: ``env/<task>/published.yaml``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf

Measure = Literal["success_rate", "mean_max_reward"]
"""A score, as ``aggregated`` of ``eval_info.json`` names it."""
_ENVIRONMENTS = Path(__file__).parents[1] / "env"


@dataclass(frozen=True)
class Figure:
    """A published number.

    Attributes:
        measure: which score it is.
        value: at most 1.
        of: what the number is an average of, where several were published.
    """

    measure: Measure
    value: float
    of: str = ""


@dataclass(frozen=True)
class Setting:
    """A method on a task.

    Attributes:
        name: for readers.
        configs: our configs that train it.
        observes: keypoints or images.
        figures: what was published for it.
    """

    name: str
    configs: Sequence[str]
    observes: str
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Benchmark:
    """A task with published scores.

    Attributes:
        name: for readers.
        environments: pattern of the ids of its environments.
        demonstrations: kinds of demonstrations, and parts of a file's name that tell the kind.
        protocol: how a run must be trained and scored to be compared: ``demonstrations`` (kind),
            ``seeds`` (first and last) and ``env_runner`` (value and default of each setting).
        settings: in the order of the table.
        notes: what a reader should know about the published scores.
    """

    name: str
    environments: str
    demonstrations: Mapping[str, Sequence[str]]
    protocol: Mapping[str, Any]
    settings: Sequence[Setting]
    notes: str

    def kind(self, demonstrations: str) -> str:
        """The kind of a file of demonstrations, or the name of the file if it is of no kind."""
        name = Path(demonstrations).name
        for kind, parts in self.demonstrations.items():
            if any(part in name for part in parts):
                return kind
        return name


@cache
def benchmark(task: str = "pusht") -> Benchmark:
    """Read the benchmark of a task of ``env/``."""
    path = _ENVIRONMENTS / task / "published.yaml"
    data: Any = OmegaConf.to_container(OmegaConf.load(path))
    settings = [
        Setting(**{**setting, "figures": [Figure(**figure) for figure in setting["figures"]]})
        for setting in data["settings"]
    ]
    name = data.pop("benchmark")
    return Benchmark(**{**data, "name": name, "settings": settings})
