"""How an array of steps is cut into chunks and compressed on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numcodecs
import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore

from diffusion_policy.dataset.stores.checks import is_text
from diffusion_policy.dataset.stores.step_copy import copy_steps
from diffusion_policy.dataset.stores.zarr_checksums import COMPLETE, with_checksum
from diffusion_policy.util.atomic_file import replacing
from diffusion_policy.util.errors import UserError

# "default", "disk", None (uncompressed), or codec objects of the zarr format in use.
Codec = Any
CompressorsOption = Mapping[str, Codec] | Codec
ChunksOption = Mapping[str, tuple[int, ...]] | tuple[int, ...] | None

# Small enough that reading one window decodes little, large enough that files stay few.
TARGET_CHUNK_BYTES = 2 * 1024 * 1024

_BLOSC: dict[str, dict[str, Any]] = {
    # read during training, straight from the disk: decodes fastest
    "default": {"cname": "lz4", "clevel": 5, "shuffle": "noshuffle"},
    # kept or sent: packs smallest
    "disk": {"cname": "zstd", "clevel": 5, "shuffle": "bitshuffle"},
}


def resolve_chunks(
    chunks: ChunksOption,
    key: str,
    shape: tuple[int, ...],
    itemsize: int,
) -> tuple[int, ...]:
    """Chunk shape of array ``key``: what ``chunks`` says for it, else about 2 MiB of whole steps.

    ``chunks`` is a chunk shape by key, one chunk shape for every array, or None.

    Raises:
        UserError: the chunk shape does not have the array's number of dimensions.
    """
    chosen = chunks.get(key) if isinstance(chunks, Mapping) else chunks
    if not shape:
        return ()
    if chosen is None:
        step_bytes = max(1, math.prod(shape[1:]) * itemsize)
        return (max(1, TARGET_CHUNK_BYTES // step_bytes), *(max(1, n) for n in shape[1:]))
    if len(chosen) != len(shape) or min(chosen) < 1:
        raise UserError(
            f"chunks of {key!r} are {tuple(chosen)} but its shape is {shape}: "
            f"give {len(shape)} numbers of at least 1"
        )
    return tuple(chosen)


def resolve_compressor(compressors: CompressorsOption, key: str, zarr_format: int) -> Codec:
    """Compressor of array ``key``; ``compressors`` is one by key, or one for every array.

    Keys left out of a mapping get ``"default"``. A codec of numcodecs becomes zarr 3's own.

    Raises:
        UserError: a name that is neither ``"default"`` nor ``"disk"``, or a codec that the format
            cannot have.
    """
    chosen = compressors.get(key, "default") if isinstance(compressors, Mapping) else compressors
    if isinstance(chosen, numcodecs.abc.Codec) and zarr_format == 3:
        return _as_zarr_3(chosen, key)
    if not isinstance(chosen, str):
        return chosen
    if chosen not in _BLOSC:
        raise UserError(
            f"compressor of {key!r} is {chosen!r}: choose one of {sorted(_BLOSC)}, "
            "a codec object, or None for no compression"
        )
    options = _BLOSC[chosen]
    if zarr_format == 3:
        return BloscCodec(**options)
    shuffle = getattr(numcodecs.Blosc, options["shuffle"].upper())
    return numcodecs.Blosc(**(options | {"shuffle": shuffle}))


def _as_zarr_3(codec: numcodecs.abc.Codec, key: str) -> Codec:
    if not isinstance(codec, numcodecs.Blosc):
        raise UserError(
            f"compressor of {key!r} is {codec!r}, which zarr format 3 cannot have: pass a codec of "
            "zarr.codecs, or zarr_format=2"
        )
    # AUTOSHUFFLE (-1) is what format 3 calls none given.
    shuffle: Any = {0: "noshuffle", 1: "shuffle", 2: "bitshuffle"}.get(codec.shuffle)
    return BloscCodec(cname=codec.cname, clevel=codec.clevel, shuffle=shuffle)


def create_array(
    group: zarr.Group,
    key: str,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    chunks: ChunksOption = None,
    compressors: CompressorsOption = "default",
) -> zarr.Array:
    """Create (or replace) the array ``key`` of ``group``; unwritten entries are zero or empty.

    Its chunks carry checksums, see :mod:`zarr_checksums`.
    """
    dtype = np.dtype(dtype)
    text, zarr_format = is_text(dtype), group.metadata.zarr_format
    codecs = with_checksum(resolve_compressor(compressors, key, zarr_format), zarr_format)
    packing: dict[str, Any] = {"compressors": codecs}
    if zarr_format == 2:  # one compressor at most, but any number of filters
        of_texts = [numcodecs.VLenUTF8()] if text else []
        packing = {"filters": [*of_texts, *codecs], "compressors": None}
    return group.create_array(
        key,
        shape=shape,
        dtype=str if text else dtype,
        chunks=resolve_chunks(chunks, key, shape, dtype.itemsize),
        **packing,
        fill_value="" if text else 0,
        attributes={COMPLETE: True},
        overwrite=True,
    )


def write_array(
    group: zarr.Group,
    key: str,
    values: np.ndarray | zarr.Array,
    chunks: tuple[int, ...] | None = None,
    compressors: Codec = "default",
) -> None:
    """Store ``values`` as the array ``key`` of ``group``, in the place of the old one, if any.

    In a folder the new array is complete before it takes that place.

    Raises:
        UserError: as :func:`resolve_chunks` and :func:`resolve_compressor`.
    """
    store = group.store_path.store

    def write(name: str, values: np.ndarray | zarr.Array) -> None:
        target = create_array(group, name, values.shape, values.dtype, chunks, {name: compressors})
        if values.shape:
            copy_steps(values, target, values.shape[0], f"{group.path}/{key}")
        else:
            target[...] = values[...]

    if isinstance(store, LocalStore):
        with replacing(store.root / group.path / key) as temporary:
            write(temporary.name, values)
    else:
        write(key, np.asarray(values[...]))
