"""Open a zarr group wherever it lies: folder, zip file, or URL; zarr format 2 or 3."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal

import fsspec
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.errors import GroupNotFoundError
from zarr.storage import FsspecStore, LocalStore, MemoryStore, StoreLike, ZipStore

from diffusion_policy.dataset.stores.zarr_arrays import member_names
from diffusion_policy.dataset.stores.zip_archive import check_members, root_in_zip
from diffusion_policy.util.atomic_file import ASIDE, put_back
from diffusion_policy.util.errors import UserError, one_line

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
    put_back(Path(path))
    if not Path(path).exists() and mode != "a":
        raise UserError(
            f"{path} does not exist: check the path, or fetch the data set (docs/data.md)"
        )
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
    if member_names(existing) and not replace:
        raise UserError(f"{store} holds something already: pass if_exists='replace'")
    return zarr.open_group(store, mode="w", zarr_format=zarr_format)


def _place(group: zarr.Group) -> tuple[object, str]:
    store = group.store
    return (store.root.resolve() if isinstance(store, LocalStore) else id(store)), group.path


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put ``path`` in front of the user errors of the block, which reads it; others become one."""
    try:
        yield
    except UserError as error:
        if os.fspath(path) in str(error):
            raise
        raise UserError(f"{os.fspath(path)}: {error}") from error
    except OSError as error:
        raise UserError(
            f"{os.fspath(path)} cannot be opened ({error.strerror or one_line(error)}): check the "
            "path and its permissions"
        ) from error
    except Exception as error:  # a broken file leads zarr to all kinds
        raise UserError(
            f"{os.fspath(path)} is damaged ({one_line(error)}): fetch it again"
        ) from error


def _open_folder(path: Path, mode: Mode) -> zarr.Group:
    for part in (path / "data", path / "meta"):
        for aside in part.glob(f".*{ASIDE}"):
            put_back(part / aside.name[1:].removesuffix(ASIDE))
    if mode != "r":
        _refuse_links(path)
    try:
        return zarr.open_group(
            LocalStore(path, read_only=mode == "r"), mode=mode, use_consolidated=False
        )
    except (GroupNotFoundError, FileNotFoundError) as error:
        inner = sorted(p for p in path.iterdir() if p.name.endswith((".zarr", ".zarr.zip")))
        remedy = (
            f"did you mean {inner[0]}?" if inner else "give the folder that holds data and meta"
        )
        raise UserError(f"{path} is not a zarr group: {remedy}") from error


def _refuse_links(path: Path) -> None:
    """Refuse to write into folders that lie outside; to read from them is fine.

    A link to a file is replaced when that is written.
    """
    with os.scandir(path) if path.is_dir() else nullcontext(()) as entries:
        for entry in entries:
            found = path / entry.name
            if entry.is_symlink() and entry.is_dir():
                raise UserError(
                    f"{found} is a link, so that writing would change {found.resolve()}: copy the "
                    "data set with save_to_path and write to the copy"
                )
            if entry.is_dir():
                _refuse_links(found)


def _open_zip(path: Path) -> zarr.Group:
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(archive, str(path), path.stat().st_size)
            root = root_in_zip(archive, str(path))
    except zipfile.BadZipFile as error:
        raise UserError(_damaged(str(path))) from error
    return zarr.open_group(ZipStore(path, mode="r"), path=root, mode="r", use_consolidated=False)


def _open_remote_zip(url: str) -> zarr.Group:
    """A zip is read as a whole: its chunks are too many for one request each."""
    try:
        with fsspec.open(url, "rb") as file:
            content = io.BytesIO(file.read())
        with zipfile.ZipFile(content) as archive:
            check_members(archive, url, content.getbuffer().nbytes)
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


def _damaged(path: str) -> str:
    return f"{path} is not a whole zip file (cut short, or something else): fetch it again"


def _unreachable(url: str, error: Exception) -> str:
    return (
        f"{url} cannot be read ({one_line(error)}): check the address and the network, or download "
        "it"
    )
