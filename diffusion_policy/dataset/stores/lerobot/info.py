"""``meta/info.json`` of a LeRobot dataset: which version it is, and its templates of file names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion_policy.dataset.stores.lerobot.checks import REMEDY, about
from diffusion_policy.dataset.stores.lerobot.templates import FileTemplate
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_file import NUMBER, read_json, require_shape

READABLE_VERSIONS = ("v2.0", "v2.1", "v3.0")
"""In v2.0 only the statistics lie elsewhere."""
INFO = Path("meta/info.json")
UNFINISHED = "unfinished"
"""Key of info.json, of this package: what lies beyond its counts was never completed."""
INITIAL_STATE = "initial_state"
"""Entry of an episode, of this package."""
_INFO_SHAPE = {
    "codebase_version": str,
    "fps": NUMBER,
    "total_episodes": int,
    "total_frames": int,
    "total_tasks?": int,
    "chunks_size?": int,
    "robot_type?": str,
    "data_path": str,
    "video_path?": str,
    "features": dict,
}
_FEATURE_SHAPE = {"dtype": str, "shape": [int], "info?": dict, "video_info?": dict}


def is_lerobot(path: Path) -> bool:
    """Whether a folder holds a LeRobot dataset, of whatever version."""
    return (path / INFO).is_file()


def read_info(root: Path) -> dict[str, Any]:
    """``info.json``, each value of its type and in its range."""
    path = root / INFO
    if not path.is_file():
        raise UserError(
            f"{root} has no {INFO}, so it is no LeRobot dataset; give the folder that holds meta, "
            "data and videos"
        )
    version = read_json(path, {}, REMEDY).get("codebase_version")
    _check_version(path, version)
    info = read_json(path, _INFO_SHAPE, REMEDY)
    for name, entry in info["features"].items():
        with about(path, f"features[{name!r}]: "):
            require_shape(entry, _FEATURE_SHAPE)
    with about(path):
        if not 0 < info["fps"] <= 1e6:
            raise UserError(f"fps is {info['fps']}; write the recorded steps per second")
        if info.get("chunks_size", 1) < 1:
            raise UserError(f"chunks_size is {info['chunks_size']}; it is 1000 in most data sets")
    return info


def _check_version(path: Path, version: object) -> None:
    if version in READABLE_VERSIONS:
        return
    readable = f"{', '.join(READABLE_VERSIONS[:-1])} and {READABLE_VERSIONS[-1]}"
    if version is None:
        raise UserError(
            f"{path} has no codebase_version, so its layout is unknown; add the one that it was "
            f"written with, of {readable}"
        )
    number = re.fullmatch(r"v(\d{1,9})\.(\d{1,9})", str(version))
    if number is None:
        raise UserError(f"{path} has codebase_version {str(version)[:40]!r}; read are {readable}")
    if (int(number[1]), int(number[2])) < (2, 0):
        remedy = "convert it with the conversion scripts of lerobot, or fetch a later revision"
    else:
        remedy = "fetch the revision of a version before it, or update this program"
    raise UserError(f"{path} has codebase_version {version}, but read are {readable}; {remedy}")


def completed(info: Mapping[str, Any], count: str) -> int | None:
    """How many episodes or tasks to read of a data set that is being written; None for all."""
    return info[count] if info.get(UNFINISHED) is True else None


def video_template(
    info: Mapping[str, Any],
    cameras: Sequence[str],
    fields: tuple[str, ...],
    needed: str | None = None,
) -> FileTemplate:
    text = info.get("video_path")
    if text is None and cameras:
        raise UserError(f"there is no video_path, but {cameras[0]!r} is a video; name its files")
    return FileTemplate(text or "", "video_path", (*fields, "video_key"), needed if text else None)


def chunks_size(info: Mapping[str, Any]) -> int:
    """How many episodes of v2 share a folder."""
    if "chunks_size" not in info:
        raise UserError("there is no chunks_size; it is 1000 in most data sets")
    return info["chunks_size"]
