"""Episodes stored end to end, in memory (numpy) or in a zarr group.

Layout of the group, for E episodes of N steps in all:

    data/<key>         (N, ...)    one row per step
    meta/episode_ends  (E,) int64  cumulative: episode i is rows ends[i-1] (0 if i = 0) to ends[i]

Every chunk is written, with a checksum: one that is missing, cut short or changed is refused when
it is read.

The episode ends are the commit mark. An append writes its rows first and its end last, a drop
takes the end away first, and each chunk and each metadata file is replaced by rename. So a process
killed at any moment leaves all earlier episodes as they were; rows beyond the last end belong to
no episode and the next append overwrites them.
"""

from __future__ import annotations

import os
from collections.abc import ItemsView, KeysView, Mapping, ValuesView
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from zarr.storage import LocalStore, MemoryStore, StoreLike, ZipStore

from diffusion_policy.dataset.stores import zarr_group as zarr_store
from diffusion_policy.dataset.stores.checks import (
    as_rows,
    check_episode,
    check_fits,
    check_lengths,
    finished_episode_ends,
)
from diffusion_policy.dataset.stores.step_copy import copy_steps, read_steps, write_steps
from diffusion_policy.dataset.stores.zarr_arrays import (
    CodecNotInstalledError,
    check_chunks,
    member_names,
    open_array,
    open_arrays,
)
from diffusion_policy.dataset.stores.zarr_checksums import without_checksum
from diffusion_policy.dataset.stores.zarr_encoding import (
    ChunksOption,
    Codec,
    CompressorsOption,
    create_array,
    resolve_compressor,
    write_array,
)
from diffusion_policy.util.atomic_file import replacing
from diffusion_policy.util.errors import UserError, writing

Array = np.ndarray | zarr.Array
Root = zarr.Group | dict[str, dict[str, np.ndarray]]
IfExists = Literal["error", "replace"]


class ReplayBuffer:
    """Episodes of equal keys; every method that changes episodes changes the storage too.

    The storage must have one writer at a time.
    """

    def __init__(self, root: Root) -> None:
        """Wrap a group, or a dict of dicts of arrays, in the layout above.

        Raises:
            UserError: a missing part, wrong episode ends, or an array shorter than they say.
        """
        # zarr types every member as an array or a group; the layout tells which.
        self.root: Any = root
        for name in ("data", "meta"):
            if not isinstance(root.get(name), zarr.Group | dict):
                raise UserError(f"the data set has no group {name!r}: it must hold data and meta")
        self._complete: set[str] = set()  # arrays whose chunks are known to be there
        self._episode_ends = finished_episode_ends(_stored_ends(self.meta))
        check_lengths(
            {key: array.shape[0] if array.ndim else 0 for key, array in self.items()}, self.n_steps
        )

    # ------------------------------------------------------------------ open and create

    @classmethod
    def create_empty_numpy(cls) -> ReplayBuffer:
        """An empty buffer in memory."""
        return cls({"data": {}, "meta": {"episode_ends": np.zeros(0, np.int64)}})

    @classmethod
    def create_empty_zarr(
        cls,
        storage: StoreLike | None = None,
        root: zarr.Group | None = None,
        zarr_format: Literal[2, 3] = 3,
    ) -> ReplayBuffer:
        """An empty buffer in ``root``, else in a new group of ``storage`` (None: in memory).

        Zarr format 2 is for readers that predate format 3.

        Raises:
            UserError: there are episodes in that place already.
        """
        if root is None:
            root = zarr_store.create_group(storage, False, zarr_format, source=None)
        root.require_group("data")
        _create_episode_ends(root.require_group("meta"), 0)
        return cls(root)

    @classmethod
    def create_from_group(cls, group: zarr.Group) -> ReplayBuffer:
        """The buffer in ``group``; a group without arrays, if writable, becomes an empty one."""
        if not group.read_only and _holds_nothing(group):
            return cls.create_empty_zarr(root=group)
        return cls(group)

    @classmethod
    def create_from_path(
        cls, zarr_path: str | os.PathLike[str], mode: zarr_store.Mode = "r"
    ) -> ReplayBuffer:
        """The buffer at a folder, zip file or URL, left where it is; see ``zarr_store.open_group``.

        Raises:
            UserError: the place cannot be opened, or what it holds breaks the layout.
        """
        with zarr_store.naming(zarr_path):
            return cls.create_from_group(zarr_store.open_group(zarr_path, mode))

    @classmethod
    def copy_from_store(
        cls,
        src_store: StoreLike | zarr.Group,
        store: StoreLike | None = None,
        keys: list[str] | None = None,
        chunks: ChunksOption = None,
        compressors: CompressorsOption = "default",
        if_exists: IfExists = "error",
        dtypes: Mapping[str, npt.DTypeLike] | None = None,
    ) -> ReplayBuffer:
        """Copy ``keys`` (None: all) into memory, or into a zarr ``store``.

        Args:
            dtypes: element type by key where it should change on the way, such as uint8 for
                images stored as floats; a value that the new type cannot hold is an error.

        Raises:
            UserError: a missing key, a damaged chunk, a lossy ``dtypes``, an occupied ``store``.
        """
        if not isinstance(src_store, zarr.Group):
            src_store = zarr.open_group(src_store, mode="r")
        source = cls(src_store)
        if store is None:
            return source._copy_to_memory(keys, dtypes or {})
        return source.save_to_store(store, chunks, compressors, if_exists, keys=keys, dtypes=dtypes)

    @classmethod
    def copy_from_path(
        cls,
        zarr_path: str | os.PathLike[str],
        backend: Literal["numpy", "zarr"] | None = None,
        store: StoreLike | None = None,
        keys: list[str] | None = None,
        **options: Any,
    ) -> ReplayBuffer:
        """Copy the data set at ``zarr_path``; ``options`` are those of :meth:`copy_from_store`.

        The copy goes into memory, or into ``store``. Backend ``"zarr"`` without a ``store`` keeps
        it compressed in memory; backend ``"numpy"`` ignores ``store``.

        Raises:
            UserError: as :meth:`create_from_path` and :meth:`copy_from_store`.
        """
        if backend == "numpy":
            store = None
        elif backend == "zarr" and store is None:
            store = MemoryStore()
        with zarr_store.naming(zarr_path):
            return cls.copy_from_store(zarr_store.open_group(zarr_path), store, keys, **options)

    # ------------------------------------------------------------------ what is stored

    @property
    def backend(self) -> Literal["numpy", "zarr"]:
        """Where the arrays live."""
        return "zarr" if isinstance(self.root, zarr.Group) else "numpy"

    @property
    def data(self) -> Any:
        """The arrays with one row per step: a zarr group or a dict."""
        return self.root["data"]

    @property
    def meta(self) -> Any:
        """The arrays about the data set, ``episode_ends`` among them: a zarr group or a dict."""
        return self.root["meta"]

    @property
    def episode_ends(self) -> np.ndarray:
        """Cumulative step counts (E,) int64."""
        return self._episode_ends

    @property
    def episode_lengths(self) -> np.ndarray:
        """Steps of each episode (E,) int64."""
        return np.diff(self._episode_ends, prepend=0)

    @property
    def n_episodes(self) -> int:
        """Number of episodes E."""
        return len(self._episode_ends)

    @property
    def n_steps(self) -> int:
        """Number of steps N over all episodes."""
        return int(self._episode_ends[-1]) if self.n_episodes else 0

    @property
    def chunk_size(self) -> int | None:
        """Steps per chunk of the first array; None in memory or without arrays."""
        chunks = self.get_chunks()
        return next(iter(chunks.values()))[0] if chunks else None

    def _arrays(self, *, all_of_them: bool = False) -> dict[str, Array]:
        """The arrays that can be opened; ``all_of_them``, or an error."""
        if isinstance(self.data, dict):
            return dict(self.data)
        return dict(open_arrays(self.data, all_of_them=all_of_them))

    def _require_complete(self, key: str, array: Array) -> Array:
        """``array``, once none of its chunks is missing."""
        if key not in self._complete and isinstance(array, zarr.Array):
            check_chunks(array, self.n_steps)
            self._complete.add(key)
        return array

    def keys(self) -> KeysView[str]:
        """Names of the arrays, but for those whose codec is not installed or is no plain data."""
        return self._arrays().keys()

    def values(self) -> ValuesView[Array]:
        """The arrays (N, ...); rows from ``n_steps`` on, if any, belong to no episode."""
        return self._arrays().values()

    def items(self) -> ItemsView[str, Array]:
        """Names and arrays."""
        return self._arrays().items()

    def __getitem__(self, key: str) -> Array:
        """The array ``key`` (N, ...).

        Raises:
            UserError: there is none, it cannot be opened, or chunks of it are missing.
        """
        array = self.data.get(key) if isinstance(self.data, dict) else open_array(self.data, key)
        if array is None:
            raise UserError(f"the data set has no data/{key}: it has {sorted(self.keys())}")
        return self._require_complete(key, array)

    def __contains__(self, key: str) -> bool:
        if isinstance(self.data, dict):
            return key in self.data
        try:
            return open_array(self.data, key) is not None
        except CodecNotInstalledError:
            return True

    def __repr__(self) -> str:
        arrays = ", ".join(f"{k} {v.dtype}{list(v.shape[1:])}" for k, v in self.items())
        return (
            f"ReplayBuffer({self.backend}, {self.n_episodes} episodes, "
            f"{self.n_steps} steps: {arrays})"
        )

    # ------------------------------------------------------------------ read episodes

    def get_episode_slice(self, idx: int) -> slice:
        """Rows of episode ``idx``; negative numbers count from the end."""
        if not -self.n_episodes <= idx < self.n_episodes:
            raise IndexError(f"episode {idx} of {self.n_episodes}")
        idx %= self.n_episodes
        start = self._episode_ends[idx - 1] if idx else 0
        return slice(int(start), int(self._episode_ends[idx]))

    def get_episode(self, idx: int, copy: bool = False) -> dict[str, np.ndarray]:
        """Arrays (L, ...) of episode ``idx``; views of memory unless ``copy``.

        Raises:
            UserError: chunks are missing or damaged.
        """
        rows = self.get_episode_slice(idx)
        return self.get_steps_slice(rows.start, rows.stop, copy=copy)

    def get_steps_slice(
        self, start: int, stop: int, step: int | None = None, copy: bool = False
    ) -> dict[str, np.ndarray]:
        """Arrays of every ``step``-th step in [start, stop); views of memory unless ``copy``."""
        rows = slice(*slice(start, stop, step).indices(self.n_steps))
        read = np.array if copy else np.asarray
        return {
            key: read(read_steps(self._require_complete(key, array), rows, f"data/{key}"))
            for key, array in self.items()
        }

    def read(self, key: str, dtype: npt.DTypeLike | None = None) -> np.ndarray:
        """The whole array ``key`` (n_steps, ...) in memory, copied, as ``dtype`` if given.

        Raises:
            UserError: a missing key, a damaged chunk, or a value that ``dtype`` cannot hold.
        """
        array = self[key]
        values = np.empty((self.n_steps, *array.shape[1:]), dtype or array.dtype)
        copy_steps(array, values, self.n_steps, f"data/{key}")
        return values

    def get_episode_idxs(self) -> np.ndarray:
        """Episode number of each step (N,) int64."""
        return np.repeat(np.arange(self.n_episodes), self.episode_lengths)

    # ------------------------------------------------------------------ change episodes

    def add_episode(
        self,
        data: Mapping[str, npt.ArrayLike],
        chunks: ChunksOption = None,
        compressors: CompressorsOption = "default",
    ) -> None:
        """Append one episode, an array (L, ...) or a list of L texts by key, L >= 1.

        The first episode decides keys, shapes and types, and chunks and compressors of a zarr
        buffer. In memory each append copies the arrays: collect long recordings in zarr.

        Raises:
            UserError: lengths that differ, keys, shapes or types that do not fit, a stored chunk
                that is missing or damaged, or a full disk. All earlier episodes are still there.
        """
        episode = {key: as_rows(value) for key, value in data.items()}
        stored = self._arrays(all_of_them=True) if self.n_episodes else {}
        check_episode(episode, stored)
        for key, array in stored.items():
            self._require_complete(key, array)
        start = self.n_steps
        stop = start + len(next(iter(episode.values())))
        with writing(self._place):
            if not self.n_episodes:
                self._start_arrays(episode, chunks, compressors)
            for key, rows in episode.items():
                array = self.data[key]
                if isinstance(array, zarr.Array):
                    array.resize((stop, *array.shape[1:]))
                    write_steps(array, slice(start, stop), rows, f"data/{key}")
                else:
                    self.data[key] = np.concatenate([array[:start], rows], dtype=array.dtype)
            self._append_end(stop)

    @property
    def _place(self) -> str:
        """Where the episodes are, for messages."""
        return str(self.root.store) if isinstance(self.root, zarr.Group) else "memory"

    def _start_arrays(
        self,
        episode: Mapping[str, np.ndarray],
        chunks: ChunksOption,
        compressors: CompressorsOption,
    ) -> None:
        """Make arrays of no steps for this episode; those of dropped or unfinished ones go."""
        for key in self._arrays():
            del self.data[key]
        for key, rows in episode.items():
            shape = (0, *rows.shape[1:])
            if isinstance(self.data, dict):
                self.data[key] = np.empty(shape, rows.dtype)
            else:
                create_array(self.data, key, shape, rows.dtype, chunks, compressors)

    def extend(self, data: Mapping[str, npt.ArrayLike]) -> None:
        """:meth:`add_episode` with its default storage."""
        self.add_episode(data)

    def truncate(self, n_episodes: int) -> None:
        """Keep the first ``n_episodes`` and drop the rest.

        Raises:
            IndexError: there are not that many.
        """
        if not 0 <= n_episodes <= self.n_episodes:
            raise IndexError(f"cannot keep {n_episodes} of {self.n_episodes} episodes")
        kept = self._episode_ends[:n_episodes]
        if isinstance(self.meta, dict):
            self.meta["episode_ends"] = kept
        else:
            stored = self.meta["episode_ends"]
            # Zero before shrinking: a chunk keeps entries beyond the array's end, and a later
            # append that grew over them would bring the dropped episodes back. One by one: zarr
            # removes a chunk before it shortens the array, and the last entry alone may lack it.
            for i in reversed(range(n_episodes, stored.shape[0])):
                stored[i] = 0
                stored.resize((i,))
        self._episode_ends = kept
        for key, array in self.items():
            if isinstance(self.data, dict):
                self.data[key] = array[: self.n_steps]
            else:
                array.resize((self.n_steps, *array.shape[1:]))

    def drop_episode(self) -> None:
        """Drop the last episode.

        Raises:
            IndexError: there is none.
        """
        self.truncate(self.n_episodes - 1)

    def pop_episode(self) -> dict[str, np.ndarray]:
        """Drop the last episode and return a copy of its arrays.

        Raises:
            IndexError: there is none.
        """
        episode = self.get_episode(-1, copy=True)
        self.drop_episode()
        return episode

    def edit(self, start: int, data: Mapping[str, npt.ArrayLike]) -> None:
        """Overwrite the steps from ``start`` on with arrays (L, ...) of some of the keys.

        A process killed here leaves some of these steps new and some old.

        Raises:
            UserError: steps out of range, or a key, shape or type that does not fit.
        """
        for key, value in data.items():
            rows = as_rows(value)
            check_fits(key, rows, self[key])
            if not 0 <= start <= start + len(rows) <= self.n_steps:
                raise UserError(
                    f"steps {start} to {start + len(rows)} of {key!r} are outside the "
                    f"{self.n_steps} stored: edit changes existing steps, add_episode appends"
                )
        for key, value in data.items():
            rows = as_rows(value)
            with writing(self._place):
                write_steps(self[key], slice(start, start + len(rows)), rows, f"data/{key}")

    def update_meta(self, data: Mapping[str, npt.ArrayLike]) -> None:
        """Add or replace arrays of ``meta``.

        Raises:
            UserError: ``episode_ends`` is among them.
        """
        if "episode_ends" in data:
            raise UserError("episode_ends follows the episodes: add or drop those instead")
        for key, value in data.items():
            array = np.asarray(value)
            if isinstance(self.meta, dict):
                self.meta[key] = array
            else:
                with writing(self._place):
                    write_array(self.meta, key, array)

    def _append_end(self, stop: int) -> None:
        ends = np.append(self._episode_ends, stop)
        if isinstance(self.meta, dict):
            self.meta["episode_ends"] = ends
        else:
            stored = self.meta["episode_ends"]
            # Between these two writes the new entry reads as 0: finished_episode_ends skips it.
            stored.resize((len(ends),))
            stored[-1] = stop
        self._episode_ends = ends

    # ------------------------------------------------------------------ save and re-encode

    def save_to_store(
        self,
        store: StoreLike,
        chunks: ChunksOption = None,
        compressors: CompressorsOption = "disk",
        if_exists: IfExists = "error",
        *,
        keys: list[str] | None = None,
        zarr_format: Literal[2, 3] = 3,
        dtypes: Mapping[str, npt.DTypeLike] | None = None,
    ) -> ReplayBuffer:
        """Copy ``keys`` (None: all) into a zarr ``store`` and return the buffer there.

        Raises:
            UserError: a missing key, or the store is occupied and ``if_exists`` is ``"error"``.
        """
        keys = list(self._arrays(all_of_them=True)) if keys is None else keys
        arrays = {key: self[key] for key in keys}
        source = self.root if isinstance(self.root, zarr.Group) else None
        root = zarr_store.create_group(store, if_exists == "replace", zarr_format, source)
        data, meta = root.create_group("data"), root.create_group("meta")
        for key, array in arrays.items():
            shape = (self.n_steps, *array.shape[1:])
            dtype = (dtypes or {}).get(key, array.dtype)
            target = create_array(data, key, shape, dtype, chunks, compressors)
            copy_steps(array, target, self.n_steps, f"data/{key}")
        for key, array in self._other_meta().items():
            create_array(meta, key, array.shape, array.dtype)[...] = array
        _create_episode_ends(meta, self.n_episodes)[:] = self._episode_ends
        return type(self)(root)

    def _copy_to_memory(
        self, keys: list[str] | None, dtypes: Mapping[str, npt.DTypeLike]
    ) -> ReplayBuffer:
        keys = list(self._arrays(all_of_them=True)) if keys is None else keys
        data = {key: self.read(key, dtypes.get(key)) for key in keys}
        meta = {"episode_ends": self._episode_ends.copy(), **self._other_meta()}
        return type(self)({"data": data, "meta": meta})

    def _other_meta(self) -> dict[str, np.ndarray]:
        names = list(self.meta) if isinstance(self.meta, dict) else member_names(self.meta)
        arrays = {key: self.read_meta(key) for key in names if key != "episode_ends"}
        return {key: array for key, array in arrays.items() if array is not None}

    def read_meta(self, key: str) -> np.ndarray | None:
        """The whole array ``meta/<key>``; None where there is none.

        Raises:
            UserError: it cannot be opened, or is damaged.
        """
        array = self.meta.get(key) if isinstance(self.meta, dict) else open_array(self.meta, key)
        if array is None:
            return None
        if isinstance(array, zarr.Array):
            check_chunks(array, array.shape[0] if array.ndim else 1)
        return read_steps(array, ..., f"meta/{key}")

    def save_to_path(
        self,
        zarr_path: str | os.PathLike[str],
        chunks: ChunksOption = None,
        compressors: CompressorsOption = "disk",
        if_exists: IfExists = "error",
        **options: Any,
    ) -> None:
        """Write to a folder, or to one file where ``zarr_path`` ends in ``.zip``.

        The name appears when everything is written, see :func:`replacing`; ``options`` are
        further ones of :meth:`save_to_store`.

        Raises:
            UserError: the path exists and ``if_exists`` is ``"error"``, or a key is missing.
        """
        path = Path(zarr_path).expanduser()
        if path.exists() and if_exists == "error":
            raise UserError(f"{path} exists: choose another name, or pass if_exists='replace'")
        with writing(path), replacing(path) as temporary:
            is_zip = path.suffix == ".zip"
            store = ZipStore(temporary, mode="w") if is_zip else LocalStore(temporary)
            self.save_to_store(store, chunks, compressors, **options)
            store.close()

    @staticmethod
    def resolve_compressor(compressor: Codec = "default", zarr_format: Literal[2, 3] = 3) -> Codec:
        """The codec that the name ``"default"`` or ``"disk"`` stands for; a codec stays itself."""
        return resolve_compressor(compressor, "compressor", zarr_format)

    def get_chunks(self) -> dict[str, tuple[int, ...]]:
        """Chunk shape by key; empty in memory."""
        return {k: v.chunks for k, v in self.items() if isinstance(v, zarr.Array)}

    def get_compressors(self) -> dict[str, tuple[Codec, ...]]:
        """Codecs by key, without checksums; empty in memory."""
        return {k: without_checksum(v) for k, v in self.items() if isinstance(v, zarr.Array)}

    def set_chunks(self, chunks: Mapping[str, tuple[int, ...]]) -> None:
        """Rewrite the arrays named in ``chunks`` with these chunk shapes.

        Raises:
            UserError: the buffer is in memory, a key is missing, or a chunk shape does not fit.
        """
        for key, shape in chunks.items():
            group, array = self._zarr_array(key)
            with writing(self._place):
                write_array(group, key, array, shape, without_checksum(array))

    def set_compressors(self, compressors: Mapping[str, Codec]) -> None:
        """Rewrite the arrays named in ``compressors`` with these.

        Raises:
            UserError: the buffer is in memory, a key is missing, or a name is unknown.
        """
        for key, codec in compressors.items():
            group, array = self._zarr_array(key)
            with writing(self._place):
                write_array(group, key, array, array.chunks, codec)

    def _zarr_array(self, key: str) -> tuple[zarr.Group, zarr.Array]:
        """The group ``data``, and an array of it."""
        array = self[key]
        if not isinstance(array, zarr.Array):
            raise UserError("a buffer in memory has no chunks: use save_to_path, which takes them")
        return self.data, array


def _holds_nothing(group: zarr.Group) -> bool:
    """Whether there are no arrays: the group is new, or was killed while it was made."""
    names = member_names(group)
    parts = [part for part in map(group.get, names) if isinstance(part, zarr.Group)]
    arrays = (open_array(part, key) for part in parts for key in member_names(part))
    return set(names) <= {"data", "meta"} and all(array is None for array in arrays)


def _stored_ends(meta: Any) -> np.ndarray:
    """``meta/episode_ends`` as it is stored."""
    ends = meta.get("episode_ends") if isinstance(meta, dict) else open_array(meta, "episode_ends")
    if ends is None:
        raise UserError("the data set has no array meta/episode_ends: write the data set again")
    if isinstance(ends, zarr.Array) and ends.ndim == 1:
        # A kill before the first write of a chunk leaves its first entry alone without a chunk.
        check_chunks(ends, ends.shape[0] - 1, zeros_allowed=False)
    return read_steps(ends, ..., "meta/episode_ends")


def _create_episode_ends(meta: zarr.Group, n_episodes: int) -> zarr.Array:
    # 64k ends in one chunk, packed to almost nothing: an append replaces one small file.
    return create_array(meta, "episode_ends", (n_episodes,), np.int64, chunks=(65536,))
