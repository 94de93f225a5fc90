"""Chunks that tell whether they are whole: a checksum in each, and none left out.

The checksum is the outermost codec, so it is compared before a decoder sees the bytes: CRC32C in
zarr format 3, and numcodecs' CRC32 in format 2, which the zarr of early programs knows, too.

Importing this module sets two things for all zarr arrays of the process. Chunks of zeros are
written like others, so that a chunk that is missing was lost. And Blosc compares the length of a
chunk with the one in its header: the library itself reads on in whatever memory lies behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numcodecs
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer
from zarr.registry import register_codec

COMPLETE = "every_chunk_is_stored"
"""Attribute of arrays whose writer left no chunk out."""

_BLOSC_HEADER = 16  # bytes, of which the last four are the length of the chunk, little-endian


def _require_whole(chunk: Any) -> None:
    found = memoryview(chunk).cast("B")
    told = int.from_bytes(found[_BLOSC_HEADER - 4 : _BLOSC_HEADER], "little")
    if len(found) < _BLOSC_HEADER or len(found) != told:
        raise ValueError(f"a Blosc chunk has {len(found)} bytes and should have {told}")


class WholeBlosc(numcodecs.Blosc):
    """Blosc that refuses a chunk which is shorter or longer than it says, with a ValueError."""

    codec_id = "blosc"

    def decode(self, buf: Any, out: Any = None) -> Any:
        """The decompressed bytes."""
        _require_whole(buf)
        return super().decode(buf, out)


@dataclass(frozen=True, init=False)
class WholeBloscCodec(BloscCodec):
    """:class:`WholeBlosc` for zarr format 3."""

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        _require_whole(chunk_bytes.as_numpy_array())
        return await super()._decode_single(chunk_bytes, chunk_spec)


numcodecs.register_codec(WholeBlosc)
register_codec("blosc", WholeBloscCodec)
zarr.config.set(
    {
        "array.write_empty_chunks": True,
        "codecs.blosc": f"{WholeBloscCodec.__module__}.{WholeBloscCodec.__qualname__}",
    }
)


def with_checksum(compressors: Any, zarr_format: int) -> list[Any]:
    """The compressors, if any, one or several, and the checksum behind them."""
    several = isinstance(compressors, list | tuple)
    codecs = compressors if several else [] if compressors is None else [compressors]
    return [*codecs, Crc32cCodec() if zarr_format == 3 else numcodecs.CRC32()]


def all_codecs(array: zarr.Array) -> tuple[Any, ...]:
    """The codecs from the bytes of the array's numbers to those of its chunks, in this order."""
    if array.metadata.zarr_format == 2:
        return (*array.filters, *array.compressors)
    return array.compressors


def without_checksum(array: zarr.Array) -> tuple[Any, ...]:
    """The compressors of an array, without its checksum and the encoding of its texts."""
    others = (Crc32cCodec, numcodecs.CRC32, numcodecs.VLenUTF8)
    return tuple(codec for codec in all_codecs(array) if not isinstance(codec, others))
