"""Open a zarr group wherever it lies: folder, zip file, or URL; zarr format 2 or 3."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import fsspec
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.errors import GroupNotFoundError
from zarr.storage import FsspecStore, LocalStore, MemoryStore, StoreLike, ZipStore

from diffusion_policy.util.atomic_file import set_aside_path
from diffusion_policy.util.errors import UserError

Mode = Literal["r", "r+", "a"]


def open_group(path: str | os.PathLike[str], mode: Mode = "r") -> zarr.Group:
    """Open the zarr group at ``path``.

    Args:
        path: a folder, a ``.zip`` file (the group may lie in a folder of it) or a URL that fsspec
            knows (``s3://``, ``http://``, ...); a URL ending in ``.zip`` is read into memory.
        mode: ``"r"`` read only, ``"r+"`` read and write, ``"a"`` the same and create if missing.
            Zip files are read only.

    Raises:
        UserError: missing path, not a zarr group, damaged zip, or a mode the place cannot give.
    """
    path = os.path.expanduser(os.fspath(path))  # noqa: PTH111 -- a URL is no Path
    is_zip = path.endswith(".zip")
    if is_zip and mode != "r":
        raise UserError(
            f"{path} cannot be changed in place: a zip file is read only; "
            "copy it with save_to_path to a folder"
        )
    if "://" in path:
        return _open_remote_zip(path) if is_zip else _open_remote(path, mode)
    if not Path(path).exists() and mode != "a":
        raise UserError(_missing(Path(path)))
    if is_zip or Path(path).is_file():
        return _open_zip(Path(path))
    return _open_folder(Path(path), mode)


def create_group(
    store: StoreLike, replace: bool, zarr_format: Literal[2, 3], source: zarr.Group | None
) -> zarr.Group:
    """An empty group in ``store``, to be filled from ``source``.

    Raises:
        UserError: the store holds something and ``replace`` is false, or it holds ``source``.
    """
    try:
        existing = zarr.open_group(store, mode="r+")
    except (GroupNotFoundError, FileNotFoundError):
        return zarr.open_group(store, mode="a", zarr_format=zarr_format)
    if source is not None and _place(existing) == _place(source):
        raise UserError(f"{store} is the data set being copied: choose another place")
    if list(existing) and not replace:
        raise UserError(f"{store} holds something already: pass if_exists='replace'")
    return zarr.open_group(store, mode="w", zarr_format=zarr_format)


def _place(group: zarr.Group) -> tuple[object, str]:
    store = group.store
    return (store.root.resolve() if isinstance(store, LocalStore) else id(store)), group.path


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put ``path`` in front of the user errors of the block; unreadable parts become one."""
    try:
        yield
    except UserError as error:
        if os.fspath(path) in str(error):
            raise
        raise UserError(f"{os.fspath(path)}: {error}") from error
    except (json.JSONDecodeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{os.fspath(path)} is damaged ({error}): fetch it again") from error


def _missing(path: Path) -> str:
    aside = set_aside_path(path)
    if aside.exists():
        return f"{path} was being replaced when its writer died: rename {aside} to {path.name}"
    return f"{path} does not exist: check the path, or fetch the data set (docs/data.md)"


def _open_folder(path: Path, mode: Mode) -> zarr.Group:
    try:
        return zarr.open_group(LocalStore(path, read_only=mode == "r"), mode=mode)
    except (GroupNotFoundError, FileNotFoundError) as error:
        inner = sorted(p for p in path.iterdir() if p.name.endswith((".zarr", ".zarr.zip")))
        remedy = (
            f"did you mean {inner[0]}?" if inner else "give the folder that holds data and meta"
        )
        raise UserError(f"{path} is not a zarr group: {remedy}") from error


def _open_zip(path: Path) -> zarr.Group:
    try:
        with zipfile.ZipFile(path) as archive:
            root = root_in_zip(archive, str(path))
    except zipfile.BadZipFile as error:
        raise UserError(_damaged(str(path))) from error
    return zarr.open_group(ZipStore(path, mode="r"), path=root, mode="r")


def _open_remote_zip(url: str) -> zarr.Group:
    """A zip is read as a whole: its chunks are too many for one request each."""
    try:
        with fsspec.open(url, "rb") as file:
            content = io.BytesIO(file.read())
        with zipfile.ZipFile(content) as archive:
            root = root_in_zip(archive, url)
            buffer = default_buffer_prototype().buffer
            entries = {name: buffer.from_bytes(archive.read(name)) for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise UserError(_damaged(url)) from error
    except (OSError, ImportError, ValueError) as error:
        raise UserError(_unreachable(url, error)) from error
    return zarr.open_group(MemoryStore(entries, read_only=True), path=root, mode="r")


def _open_remote(url: str, mode: Mode) -> zarr.Group:
    try:
        return zarr.open_group(FsspecStore.from_url(url, read_only=mode == "r"), mode=mode)
    except GroupNotFoundError as error:
        raise UserError(f"{url} is not a zarr group: check the address") from error
    except (OSError, ImportError, ValueError) as error:
        raise UserError(_unreachable(url, error)) from error


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


def _damaged(path: str) -> str:
    return f"{path} is not a whole zip file (cut short, or something else): fetch it again"


def _unreachable(url: str, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"{url} cannot be read ({reason}): check the address and the network, or download it"
