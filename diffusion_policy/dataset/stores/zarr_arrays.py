"""The arrays of a zarr group: which can be opened, and whether their chunks are all there."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence

import numcodecs.pickles
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore, ZipStore

from diffusion_policy.dataset.stores.zarr_checksums import COMPLETE, all_codecs
from diffusion_policy.util.errors import UserError, one_line

_AT_ONCE = 8  # chunks fetched together: enough for a network, little for the memory
_MOST_REQUESTS = 100  # to find out whether chunks exist
_MOST_TOLD = 1000  # missing chunks that are counted
_MOST_EXPANSION = 1000  # what is read, of what is stored, where chunks are missing
_ALWAYS_ALLOWED = 2**30  # bytes


class CodecNotInstalledError(UserError):
    """An array is packed with a codec that is not installed; what it packs may not be needed."""


def member_names(group: zarr.Group) -> list[str]:
    """Sorted names in a group, whether or not they can be opened.

    Names with a leading dot are left out: they are files of zarr, or of a rewrite that was killed.
    """
    consolidated = group.metadata.consolidated_metadata
    if consolidated is not None:  # where nothing else can be listed, such as behind http
        names = {name.partition("/")[0] for name in consolidated.metadata}
    else:
        names = sync(_names(group))
    ours = (name for name in names if not name.startswith(".") and not name.endswith(".partial"))
    return sorted(name for name in ours if name != "zarr.json")


async def _names(group: zarr.Group) -> set[str]:
    # Some protocols put a slash behind the name of a folder.
    return {name.rstrip("/") async for name in group.store.list_dir(group.path)}


def open_array(group: zarr.Group, key: str) -> zarr.Array | None:
    """The array ``key`` of ``group``; None where that is no array.

    Raises:
        CodecNotInstalledError: it can be read elsewhere.
        UserError: its metadata are damaged, it holds objects, or reading it would run code of
            whoever wrote it.
    """
    name = f"{group.path}/{key}".lstrip("/")
    try:
        array = group.get(key)
    except Exception as error:  # whatever a broken file leads zarr to
        if type(error).__name__ == "UnknownCodecError":
            raise CodecNotInstalledError(
                f"{name} is packed with a codec that is not installed ({one_line(error)}): install "
                "the package that has it (imagecodecs for names that begin so), or leave it out"
            ) from error
        raise UserError(
            f"{name} is damaged, or holds something else than numbers and texts "
            f"({one_line(error)}): fetch or write the data set again"
        ) from error
    if not isinstance(array, zarr.Array):
        return None
    if any(isinstance(codec, numcodecs.pickles.Pickle) for codec in all_codecs(array)):
        raise UserError(
            f"{name} is a pickle, which runs the code of whoever wrote it: store numbers or texts"
        )
    return array


def open_arrays(group: zarr.Group, *, all_of_them: bool = False) -> dict[str, zarr.Array]:
    """The arrays of a group by name; unless ``all_of_them``, without those whose codec is missing.

    Raises:
        UserError: as :func:`open_array`.
    """
    arrays = {}
    for key in member_names(group):
        try:
            array = open_array(group, key)
        except CodecNotInstalledError:
            if all_of_them:
                raise
            continue
        if array is not None:
            arrays[key] = array
    return arrays


def chunk_keys(array: zarr.Array, n_rows: int) -> Iterator[tuple[int, str]]:
    """First row and key in the store of each chunk with any of the first ``n_rows`` rows."""
    grid = _grid(array)
    for place in _places(_counts(array, n_rows)):
        key = array.metadata.encode_chunk_key(place)
        yield (place[0] * grid[0] if place else 0), f"{array.path}/{key}"


def _places(counts: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """As itertools.product of ranges, which would first make a list of each."""
    if not counts:
        yield ()
        return
    for first in range(counts[0]):
        for others in _places(counts[1:]):
            yield first, *others


def _grid(array: zarr.Array) -> tuple[int, ...]:
    """Shape of what is stored under one key."""
    return array.shards or array.chunks


def _counts(array: zarr.Array, n_rows: int) -> list[int]:
    """Number of chunks along each axis, for the first ``n_rows`` rows."""
    shape = _shape(array, n_rows)
    return [-(-length // chunk) for length, chunk in zip(shape, _grid(array), strict=True)]


def _shape(array: zarr.Array, n_rows: int) -> tuple[int, ...]:
    """Of the first ``n_rows`` rows."""
    return (min(n_rows, array.shape[0]), *array.shape[1:]) if array.shape else ()


def chunk_contents(array: zarr.Array, n_rows: int) -> Iterator[bytes]:
    """What decides the values of the first ``n_rows`` rows: metadata, and chunks as stored."""
    left_out = ("shape", "attributes")
    metadata = {k: v for k, v in array.metadata.to_dict().items() if k not in left_out}
    yield json.dumps(metadata, sort_keys=True, default=str).encode()
    keys = (key for _, key in chunk_keys(array, n_rows))
    while some := list(itertools.islice(keys, _AT_ONCE)):
        yield from sync(_contents(array, some))


async def _contents(array: zarr.Array, keys: list[str]) -> list[bytes]:
    prototype = default_buffer_prototype()
    chunks = await asyncio.gather(*(array.store.get(key, prototype) for key in keys))
    return [b"" if chunk is None else chunk.to_bytes() for chunk in chunks]


def check_chunks(array: zarr.Array, n_rows: int, *, zeros_allowed: bool = True) -> None:
    """Find chunks that are missing among the first ``n_rows`` rows, without reading any.

    zarr reads a missing chunk as zeros. Its writer may have left out chunks of nothing but zeros,
    so this is only warned of, unless the array says that it has them all. At a URL, where each
    chunk takes a request, arrays of many chunks are not looked at.

    Args:
        zeros_allowed: False where no chunk can be of zeros alone.

    Raises:
        UserError: chunks are missing of an array that had them all, or almost all of a huge array:
            a few bytes of metadata ask for any number of zeros.
    """
    exists = _presence(array, n_rows)
    if exists is None:
        return
    missing = (row for row, key in chunk_keys(array, n_rows) if not exists(key))
    lost = list(itertools.islice(missing, _MOST_TOLD))
    if not lost:
        return
    length = _grid(array)[0] if array.shape else 1
    count = f"{_MOST_TOLD} or more" if len(lost) == _MOST_TOLD else str(len(lost))
    where = (
        f"{array.path} lacks {count} of its {math.prod(_counts(array, n_rows))} chunks, from row "
        f"{lost[0]} to {min(lost[-1] + length, n_rows)}"
    )
    if array.attrs.get(COMPLETE) or not zeros_allowed:
        raise UserError(f"{where}: the copy is incomplete; fetch or copy the data set again")
    _require_bounded(array, n_rows)
    warnings.warn(
        f"{where}: they are read as zeros; if zeros were not recorded, fetch or copy the data set "
        "again",
        stacklevel=2,
    )


def _require_bounded(array: zarr.Array, n_rows: int) -> None:
    size = math.prod(_shape(array, n_rows)) * array.dtype.itemsize
    if size > _ALWAYS_ALLOWED and size > _MOST_EXPANSION * array.nbytes_stored():
        raise UserError(
            f"{array.path} would fill {size} bytes, hardly any of which is stored: fetch or copy "
            "the data set again"
        )


def _presence(array: zarr.Array, n_rows: int) -> Callable[[str], bool] | None:
    """Whether a chunk exists, given its key; None where that takes long to find out."""
    store = array.store
    if isinstance(store, LocalStore):
        root = os.fspath(store.root)
        return lambda key: os.path.isfile(f"{root}/{key}")  # noqa: PTH113 -- a Path takes 10 times longer
    if isinstance(store, ZipStore | MemoryStore):
        return sync(_listed(array)).__contains__
    if math.prod(_counts(array, n_rows)) > _MOST_REQUESTS:
        return None
    return sync(_found(array, [key for _, key in chunk_keys(array, n_rows)])).__contains__


async def _listed(array: zarr.Array) -> set[str]:
    return {key async for key in array.store.list_prefix(f"{array.path}/")}


async def _found(array: zarr.Array, keys: list[str]) -> set[str]:
    exist = await asyncio.gather(*(array.store.exists(key) for key in keys))
    return {key for key, exists in zip(keys, exist, strict=True) if exists}
