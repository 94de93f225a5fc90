"""What a zip file must be before a data set is read from it."""

from __future__ import annotations

import stat
import zipfile
from collections import Counter
from pathlib import PurePosixPath, PureWindowsPath

from diffusion_policy.util.errors import UserError

_MOST_EXPANSION = 100
"""Chunks are packed already, so a zip of them hardly grows; black images left unpacked do."""
_ALWAYS_ALLOWED = 2**30  # bytes


def check_members(archive: zipfile.ZipFile, path: str, packed_size: int) -> None:
    """Refuse an archive whose names lead elsewhere, or that would fill the disk or the memory.

    Args:
        path: name of the archive in messages.
        packed_size: of the archive in bytes.

    Raises:
        UserError: a name is absolute, leads upwards or occurs twice, a member is a link or needs a
            password, or all of them are far larger than the archive.
    """
    members = archive.infolist()
    for member in members:
        name = member.filename
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or "\\" in name or PureWindowsPath(name).drive:
            raise UserError(f"{path} would write {name!r} outside the folder: do not use it")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UserError(f"{path} holds a link, {name!r}: pack the files themselves")
        if member.flag_bits & 1:
            raise UserError(f"{path} needs a password for {name!r}: unpack it yourself")
    for name, count in Counter(archive.namelist()).most_common(1):
        if count > 1:
            raise UserError(f"{path} holds {name!r} {count} times: pack the data set again")
    size = sum(member.file_size for member in members)
    if size > _ALWAYS_ALLOWED + _MOST_EXPANSION * packed_size:
        raise UserError(
            f"{path} would grow from {packed_size} to {size} bytes, which no data set does: do not "
            "use it, or unpack it yourself"
        )


def root_in_zip(archive: zipfile.ZipFile, path: str) -> str:
    """The folder inside the archive that holds ``data`` and ``meta``; "" when it is the top.

    Raises:
        UserError: there is none, or more than one; ``path`` is the archive's name in the message.
    """
    markers = ("meta/episode_ends/.zarray", "meta/episode_ends/zarr.json")
    roots = {
        name.removesuffix(marker).rstrip("/")
        for name in archive.namelist()
        for marker in markers
        if name == marker or name.endswith("/" + marker)
    }
    if len(roots) != 1:
        found = f"{len(roots)} of them: {sorted(roots)}" if roots else "none"
        raise UserError(
            f"{path} must hold one zarr group with meta/episode_ends but has {found}: "
            "give an archive of one data set"
        )
    return roots.pop()
