"""Join the files of single episodes of a LeRobot v3.0 data set into files up to a size."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_policy.dataset.stores.lerobot.parquet import open_parquet
from diffusion_policy.dataset.stores.lerobot.tables_3 import META_PATH, prefixed, rows_table
from diffusion_policy.dataset.video.packet_copy import (
    Layout,
    NotCopyableError,
    Part,
    copy_parts,
    read_layout,
)
from diffusion_policy.dataset.video.segment import VideoSegment
from diffusion_policy.util.atomic_file import replacing
from diffusion_policy.util.errors import writing
from diffusion_policy.util.extras import import_extra
from diffusion_policy.util.json_text import json_text

if TYPE_CHECKING:
    from diffusion_policy.dataset.stores.lerobot.layout_3 import Layout3

Row = dict[str, Any]
_REWRITTEN = {"data", "videos", "meta/episodes", "meta/info.json", ".writing"}


def merge_files(layout: Layout3, rows: Sequence[Row], info: Mapping[str, Any]) -> bool:
    """Replace the data set by one of few files, if it has files that can be joined.

    Videos are joined packet by packet and columns row group by row group. Files that stay alone are
    linked, not copied. The folder is replaced as a whole: a kill leaves the old one or the new one.

    Args:
        rows: of ``meta/episodes``, in order; changed to tell the new places.
        info: what info.json shall hold.

    Returns:
        Whether anything was replaced, ``info`` included.

    Raises:
        UserError: a full disk; the data set is as it was.
    """
    kinds = ["data", *sorted({name.rpartition("/")[0] for name in rows[0] if _is_video(name)})]
    packs = {kind: _packs(layout, kind, rows) for kind in kinds}
    if all(len(pack) == 1 for of_kind in packs.values() for pack in of_kind):
        return False
    with writing(layout.root), replacing(layout.root) as target:
        _link_rest(layout.root, target)
        for kind, of_kind in packs.items():
            for number, pack in enumerate(of_kind):
                place = _place(layout, number)
                path = target / _file_name(layout, kind, place)
                path.parent.mkdir(parents=True, exist_ok=True)
                _join(layout, kind, pack, path)
                _tell(layout, kind, pack, place)
        path = target / META_PATH.format(chunk_index=0, file_index=0)
        path.parent.mkdir(parents=True)
        for row in rows:
            row |= prefixed("meta/episodes", {"chunk_index": 0, "file_index": 0})
        import_extra("pyarrow.parquet", "lerobot", "writing a LeRobot dataset").write_table(
            rows_table(rows), path
        )
        (target / "meta/info.json").write_text(json_text(info, indent=4), encoding="utf-8")
    return True


def _is_video(name: str) -> bool:
    return name.startswith("videos/") and name.endswith("/file_index")


class _File:
    """One file of a kind, and the rows of the episodes in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []

    @property
    def n_frames(self) -> int:
        return sum(row["length"] for row in self.rows)

    @property
    def part(self) -> Part:
        return Part(VideoSegment(self.path), self.n_frames)


def _packs(layout: Layout3, kind: str, rows: Sequence[Row]) -> list[list[_File]]:
    """Files in order, in groups that become one file each.

    Only files of a single episode are joined: larger ones have been, or come from elsewhere.
    """
    files: dict[Path, _File] = {}
    for row in rows:
        place = {part: row[f"{kind}/{part}"] for part in ("chunk_index", "file_index")}
        path = layout.root / _file_name(layout, kind, place)
        files.setdefault(path, _File(path)).rows.append(row)
    limit = (layout.data_mb if kind == "data" else layout.video_mb) * 2**20
    packs: list[list[_File]] = []
    size, shared = 0, None
    for file in files.values():
        found = _joinable(layout, kind, file)
        n_bytes = file.path.stat().st_size
        if packs and found is not None and found == shared and size + n_bytes < limit:
            packs[-1].append(file)
            size += n_bytes
        else:
            packs.append([file])
            size, shared = n_bytes, found
    return packs


def _joinable(layout: Layout3, kind: str, file: _File) -> Layout | str | None:
    """What this file and another one must share to be joined; None where it stays alone."""
    if len(file.rows) > 1:
        return None
    if kind == "data":
        return kind
    try:
        return read_layout(file.part, layout.fps)
    except NotCopyableError:
        return None


def _place(layout: Layout3, number: int) -> dict[str, int]:
    chunk, file = divmod(number, layout.chunks_size)
    return {"chunk_index": chunk, "file_index": file}


def _file_name(layout: Layout3, kind: str, place: Mapping[str, int]) -> str:
    template = layout.data_path if kind == "data" else layout.video_path
    return template.format(video_key=kind.removeprefix("videos/"), **place)


def _join(layout: Layout3, kind: str, pack: Sequence[_File], path: Path) -> None:
    if len(pack) == 1:
        link_or_copy(pack[0].path, path)
    elif kind == "data":
        _join_columns([file.path for file in pack], path)
    else:
        copy_parts(path, [file.part for file in pack], layout.fps)


def _join_columns(paths: Iterable[Path], path: Path) -> None:
    """One row group for each episode, so that one can be read without the others."""
    parquet = import_extra("pyarrow.parquet", "lerobot", "writing a LeRobot dataset")
    writer = None
    try:
        for source in paths:
            table = open_parquet(source).read()
            if writer is None:
                writer = parquet.ParquetWriter(path, table.schema)
            writer.write_table(table.cast(writer.schema), row_group_size=len(table))
    finally:
        if writer is not None:
            writer.close()


def _tell(layout: Layout3, kind: str, pack: Sequence[_File], place: Mapping[str, int]) -> None:
    """Write the new place of each episode to its row."""
    n_frames = 0
    for file in pack:
        for row in file.rows:
            row |= prefixed(kind, place)
            if kind != "data" and len(pack) > 1:
                start, stop = n_frames, n_frames + row["length"]
                times = {"from_timestamp": start / layout.fps, "to_timestamp": stop / layout.fps}
                row |= prefixed(kind, times)
                n_frames = stop


def _link_rest(source: Path, target: Path) -> None:
    """Everything else in the folder, such as a README."""
    target.mkdir()
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        if any(name == part or name.startswith(f"{part}/") for part in _REWRITTEN):
            continue
        if path.is_dir() and not path.is_symlink():
            (target / name).mkdir(parents=True, exist_ok=True)
        else:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, target / name)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the disk cannot do that."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
