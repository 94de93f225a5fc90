"""Write LeRobot v2.1 as GR00T reads it: H.264, meta/modality.json and meta/stats.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy.dataset.stores.lerobot.features import AUTOMATIC
from diffusion_policy.dataset.stores.lerobot.parquet import open_parquet
from diffusion_policy.dataset.stores.lerobot.writer import LeRobotWriter
from diffusion_policy.dataset.video.encoder import VideoEncoding
from diffusion_policy.util.errors import UserError, writing
from diffusion_policy.util.json_text import json_text

GROOT_ENCODING = VideoEncoding("h264", crf=23)
MODALITY = Path("meta/modality.json")
_SIDES = ("left", "right")


class GrootWriter(LeRobotWriter):
    """Writes the flavour of GR00T N1.5, which is a LeRobot data set of v2.1, too.

    Args:
        root, fps, robot_type, names: see :class:`LeRobotWriter`.
        modality: what ``modality.json`` shall hold; None derives it from the features.
        encoding: of videos.
        durable: see :class:`LeRobotWriter`.
    """

    def __init__(
        self,
        root: str | Path,
        fps: float,
        robot_type: str | None = None,
        names: Mapping[str, Any] | None = None,
        modality: Mapping[str, Any] | None = None,
        encoding: VideoEncoding = GROOT_ENCODING,
        durable: bool = True,
    ) -> None:
        super().__init__(root, fps, "v2.1", robot_type, names, encoding, durable=durable)
        self.modality = modality

    def _begin(self) -> None:
        super()._begin()
        if not self.n_episodes:
            found = self.modality or derived_modality(self._features)
            check_modality(found, self._features)
            self._layout.write_text(self.root / MODALITY, json_text(found, indent=4))

    def finish(self) -> None:
        """See :class:`EpisodeWriter`; also writes the statistics of all columns."""
        if self.n_episodes:
            files = [self._layout.data_file(i) for i in range(self.n_episodes)]
            columns = [key for key, e in self._features.items() if e["dtype"] not in _NO_STATISTICS]
            statistics = {key: column_statistics(files, key) for key in columns}
            with writing(self.root):
                self._layout.write_text(
                    self.root / "meta/stats.json", json_text(statistics, indent=4)
                )
        super().finish()


_NO_STATISTICS = ("video", "image", "string")


def derived_modality(features: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """``modality.json`` from the entries of info.json.

    Vectors of the robot are cut by the names of their numbers into arms and grippers, as in
    ``single_arm`` and ``gripper``, or ``left_arm`` and so on; a vector without names stays whole.
    """
    modality: dict[str, Any] = {
        "state": {},
        "action": {},
        "video": {},
        "annotation": {"human.task_description": {"original_key": "task_index"}},
    }
    for key, entry in features.items():
        if entry["dtype"] == "video":
            name = _unused(modality["video"], key.removeprefix("observation.images."))
            modality["video"][name] = {"original_key": key}
        elif _is_vector(key, entry):
            of_action = key == "action" or key.startswith("action.")
            kind = "action" if of_action else "state"
            for name, start, end in _parts(key, entry):
                name = _unused(modality[kind], name)
                modality[kind][name] = {"start": start, "end": end, "original_key": key}
    return modality


def _is_vector(key: str, entry: Mapping[str, Any]) -> bool:
    """Whether a column of lists can be part of the state or the action."""
    is_number = entry["dtype"] not in _NO_STATISTICS
    of_robot = key not in AUTOMATIC and not key.startswith("next.")
    return is_number and of_robot and len(entry["shape"]) == 1 and entry["shape"] != [1]


def _unused(taken: Mapping[str, Any], name: str) -> str:
    return name if name not in taken else f"{name}_{len(taken)}"


def _parts(key: str, entry: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Name, start and end of each part of a vector."""
    n, names = entry["shape"][0], entry["names"]
    if isinstance(names, Mapping):
        names = [name for each in names.values() if isinstance(each, list) for name in each]
    if not isinstance(names, list) or len(names) != n:
        yield key.removeprefix("observation.").removeprefix("action."), 0, n
        return
    start = 0
    for name, run in groupby(names, _part_of):
        end = start + len(list(run))
        yield name, start, end
        start = end


def _part_of(name: object) -> str:
    words = str(name).lower()
    side = next((side for side in _SIDES if side in words), None)
    if "gripper" in words:
        return f"{side}_gripper" if side else "gripper"
    return f"{side}_arm" if side else "single_arm"


def check_modality(modality: Mapping[str, Any], features: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that a modality names what is recorded.

    Raises:
        UserError: a part reaches beyond its vector, or a key is not recorded.
    """
    for kind, default in (("state", "observation.state"), ("action", "action"), ("video", None)):
        for name, part in modality.get(kind, {}).items():
            key = part.get("original_key", default or f"observation.images.{name}")
            if key not in features:
                raise UserError(
                    f"modality.{kind}.{name} is of {key!r}, which is not recorded: correct "
                    "original_key"
                )
            if kind == "video":
                continue
            start, end, n = part.get("start"), part.get("end"), features[key]["shape"][0]
            if not (type(start) is int and type(end) is int and 0 <= start < end <= n):
                raise UserError(
                    f"modality.{kind}.{name} is {start} to {end} of {key!r}, which has {n} "
                    "numbers: correct start and end"
                )


def column_statistics(files: Sequence[Path], key: str) -> dict[str, list[float]]:
    """Statistics over all steps of a column, as GR00T computes them, in float32."""
    blocks = []
    for path in files:
        column = open_parquet(path).read(columns=[key])[key]
        blocks.append(np.array(column.to_pylist(), np.float32).reshape(len(column), -1))
    values = np.concatenate(blocks)
    q01, q99 = np.quantile(values, [0.01, 0.99], axis=0)
    found = {
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "q01": q01,
        "q99": q99,
    }
    return {name: value.tolist() for name, value in found.items()}
