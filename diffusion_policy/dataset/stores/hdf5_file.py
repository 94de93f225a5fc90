"""Groups, arrays and attributes of an HDF5 file that somebody else made.

Nothing here follows a link, opens another file, loads a plugin or unpickles. A file tells the
sizes of its arrays; those that its own size cannot explain are refused before anything is read.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusion_policy.util.errors import UserError, one_line
from diffusion_policy.util.extras import import_extra

if TYPE_CHECKING:
    import h5py

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
"""Filters that are built in, by their registered number. Others would be loaded as plugins."""
_ALWAYS_ALLOWED = 2**30  # bytes
_MOST_EXPANSION = 100
"""Recorded numbers and pictures hardly shrink; a small file of black images does."""


def is_hdf5(path: str | Path) -> bool:
    """Whether a file begins as HDF5 files do."""
    path = Path(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


@contextmanager
def naming_file(path: str | Path) -> Iterator[None]:
    """Put ``path`` in front of the user errors of the block; what else reading raises becomes one.

    Raises:
        UserError: in place of any exception of the block.
    """
    try:
        yield
    except UserError as error:
        if str(path) in str(error):
            raise
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # a broken file leads HDF5 to all kinds
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise UserError(f"{path} is damaged ({one_line(error)[:200]}); fetch it again") from error


def open_hdf5(path: str | Path) -> h5py.File:
    """Open a file to read.

    Raises:
        UserError: h5py is missing, or the file is absent, cut short or damaged.
    """
    h5py = import_extra("h5py", "hdf5", "reading HDF5 data sets")
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; check the path")
    try:
        # Every read here takes a chunk once, so that a cache of chunks would only take memory.
        return h5py.File(path, "r", rdcc_nbytes=0, locking=False)
    except OSError as error:
        if error.filename is not None and isinstance(error, PermissionError):
            raise
        cause = "it is cut short" if "truncated" in str(error) else one_line(error)[:200]
        raise UserError(f"{path} cannot be read as HDF5 ({cause}); fetch it again") from None


class OpenFile:
    """A file that every process opens for itself, when it first reads.

    A handle of HDF5 does not survive a fork or a pickle, but this object does.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._process = 0

    @property
    def root(self) -> h5py.File:
        """The open file."""
        if self._file is None or self._process != os.getpid():
            self._file, self._process = open_hdf5(self.path), os.getpid()
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_file": None, "_process": 0}


def find_group(parent: h5py.Group, name: str) -> h5py.Group | None:
    """The group of that name in ``parent``; None where there is nothing.

    Raises:
        UserError: it is a link, or an array.
    """
    found = find_member(parent, name)
    if found is not None and not is_group(found):
        raise UserError(f"{_name(parent, name)} is an array and no group; write the file again")
    return found


def find_array(parent: h5py.Group, name: str) -> h5py.Dataset | None:
    """The array of that name in ``parent``, checked to be safe to read; None where there is none.

    Raises:
        UserError: it is a link or a group, lies in another file, is packed with a filter that is
            not built in, lacks chunks, or is too large for its file.
    """
    found = find_member(parent, name)
    if found is None:
        return None
    if is_group(found):
        raise UserError(f"{_name(parent, name)} is a group and no array; write the file again")
    _check_array(found)
    return found


def find_at(group: h5py.Group, path: str) -> h5py.Dataset | None:
    """The array at a path within a group, see :func:`find_array`; None where there is none."""
    *groups, name = path.split("/")
    owner: h5py.Group | None = group
    for inner in groups:
        owner = None if owner is None else find_group(owner, inner)
    return None if owner is None else find_array(owner, name)


def find_member(parent: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """What bears that name in ``parent``; None where nothing does.

    Raises:
        UserError: it is a link.
    """
    import h5py

    # The group's own methods would follow a link, and open the file that it names.
    links, encoded = parent.id.links, name.encode()
    if not links.exists(encoded):
        return None
    kind = links.get_info(encoded).type
    if kind != h5py.h5l.TYPE_HARD:
        place = "the file" if kind == h5py.h5l.TYPE_SOFT else "another file"
        target = str(links.get_val(encoded))[:100]
        raise UserError(
            f"{_name(parent, name)} is a link to {target} in {place}, which is not followed; store "
            "what it names"
        )
    return parent[name]


def is_group(member: h5py.Group | h5py.Dataset) -> bool:
    """Whether a member of a group is a group itself."""
    return hasattr(member, "keys")


def _name(parent: h5py.Group, name: str) -> str:
    return f"{parent.name}/{name}".lstrip("/")


def _check_array(array: h5py.Dataset) -> None:
    name = array.name.lstrip("/")
    if array.is_virtual or array.external:
        raise UserError(f"{name} lies in another file, which is not opened; store the array itself")
    plist = array.id.get_create_plist()
    for i in range(plist.get_nfilters()):
        number, _, _, title = plist.get_filter(i)
        if number not in _FILTERS:
            raise UserError(
                f"{name} is packed with filter {number} ({title.decode(errors='replace')!r}); "
                f"pack it with gzip or lzf, or not at all"
            )
    _check_size(array, name)


def _check_size(array: h5py.Dataset, name: str) -> None:
    """Refuse arrays that would fill the memory, and those that were not stored as a whole."""
    if array.shape is None:
        raise UserError(f"{name} is empty; record or fetch the data set again")
    n_bytes = math.prod(array.shape) * array.id.get_type().get_size()
    require_plausible(n_bytes, f"{name}, {list(array.shape)} {array.dtype},", array.file)
    if array.chunks is None:
        stored_bytes = array.id.get_storage_size()
        # Texts of any length are stored elsewhere, and counted otherwise.
        if n_bytes and (stored_bytes == 0 or (array.dtype.kind != "O" and stored_bytes != n_bytes)):
            raise UserError(f"{name} was never written; record or fetch the data set again")
        return
    if math.prod(array.chunks) * array.dtype.itemsize > _ALWAYS_ALLOWED:
        raise UserError(f"{name} has chunks of {list(array.chunks)}; store it in smaller ones")
    n_chunks = math.prod(-(-n // size) for n, size in zip(array.shape, array.chunks, strict=True))
    if (stored := array.id.get_num_chunks()) < n_chunks:
        raise UserError(
            f"{name} lacks {n_chunks - stored} of its {n_chunks} chunks; record or fetch the data "
            "set again"
        )


def require_plausible(n_bytes: int, what: str, file: h5py.File) -> None:
    """Refuse more bytes than a file of its size can hold.

    Raises:
        UserError: there are more.
    """
    file_size = file.id.get_filesize()
    if n_bytes > _ALWAYS_ALLOWED + _MOST_EXPANSION * file_size:
        raise UserError(
            f"{what} would take {n_bytes} bytes, which a file of {file_size} bytes does not hold; "
            "do not use it, or fetch it again"
        )


def read_rows(array: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Rows (n, ...) of an array, given in increasing order; no chunk is unpacked twice.

    HDF5 itself takes time that grows with the square of the number of single rows.
    """
    rows = np.asarray(rows)
    out = np.empty((len(rows), *array.shape[1:]), array.dtype)
    if not len(rows):
        return out
    # Chunks are read one by one, other arrays in runs.
    block = rows // array.chunks[0] if array.chunks else rows - np.arange(len(rows))
    starts = np.flatnonzero(np.diff(block, prepend=block[:1] - 1))
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        wanted = rows[start:end]
        out[start:end] = array[wanted[0] : wanted[-1] + 1][wanted - wanted[0]]
    return out


def text_attribute(owner: h5py.Group, name: str) -> str | None:
    """A text that is kept beside a group; None where there is none."""
    value = owner.attrs.get(name)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return value if isinstance(value, str) else None


def json_attribute(owner: h5py.Group, name: str) -> Mapping[str, Any]:
    """An attribute that is a JSON object; {} where there is none.

    Raises:
        UserError: it is a text but no JSON object.
    """
    text = text_attribute(owner, name)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"the attribute {name} of {owner.name} is damaged ({one_line(error)[:100]}); "
            "fetch the file again"
        ) from None
    return value if isinstance(value, Mapping) else {}


def arrays_below(group: h5py.Group) -> dict[str, h5py.Dataset]:
    """All arrays of a tree by their path in it, in the order of the names of each group.

    Raises:
        UserError: a group occurs twice, so that the tree might have no end; or see
            :func:`find_array`.
    """
    import h5py

    found: dict[str, h5py.Dataset] = {}
    seen: set[int] = set()

    def walk(inner: h5py.Group, path: str) -> None:
        address = h5py.h5o.get_info(inner.id).addr
        if address in seen:
            raise UserError(f"{inner.name} is its own part, or one of two groups; write it anew")
        seen.add(address)
        for name in sorted(inner):
            child = find_member(inner, name)
            if is_group(child):
                walk(child, f"{path}{name}/")
            else:
                _check_array(child)
                found[path + name] = child

    walk(group, "")
    return found
