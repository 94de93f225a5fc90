"""What must hold for episodes stored end to end, checked before anything trains on them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import zarr

from diffusion_policy.util.errors import UserError

# NumPy 1 has no type of strings of any length.
_TEXT = np.dtypes.StringDType() if hasattr(np.dtypes, "StringDType") else np.dtype(object)


def finished_episode_ends(stored: np.ndarray) -> np.ndarray:
    """The stored episode ends (E,) without the zeros that an interrupted append leaves at the end.

    No episode is empty, so no true end is 0.

    Raises:
        UserError: the ends are not one row of whole numbers, or do not increase.
    """
    if stored.ndim != 1 or stored.dtype.kind not in "iu":
        raise UserError(
            f"meta/episode_ends has shape {stored.shape} and type {stored.dtype}: "
            "store one whole number per episode, shape (E,)"
        )
    filled = np.flatnonzero(stored)
    ends = stored[: filled[-1] + 1 if filled.size else 0].astype(np.int64)
    lengths = np.diff(ends, prepend=0)
    if (lengths <= 0).any():
        bad = int(np.flatnonzero(lengths <= 0)[0])
        before = int(ends[bad - 1]) if bad else 0
        raise UserError(
            f"meta/episode_ends[{bad}] is {ends[bad]}, not above {before}, the end before it: "
            "store cumulative step counts, without empty episodes"
        )
    return ends


def check_lengths(lengths: Mapping[str, int], n_steps: int) -> None:
    """Check that every array (length by key) reaches the last episode end.

    An interrupted append leaves steps that belong to no episode: longer arrays are warned of.

    Raises:
        UserError: names the first array that is too short.
    """
    for key, length in lengths.items():
        if length < n_steps:
            raise UserError(
                f"data/{key} has {length} steps but meta/episode_ends counts {n_steps}: "
                "the copy is incomplete or the ends are wrong; fetch or write the data set again"
            )
    beyond = {key: length - n_steps for key, length in lengths.items() if length > n_steps}
    if beyond:
        warnings.warn(
            f"steps beyond the last episode end are ignored ({beyond}): an append was "
            "interrupted, or an episode end is missing",
            stacklevel=3,
        )


def is_text(dtype: np.dtype) -> bool:
    """Whether arrays of this type hold texts."""
    return dtype.kind in ("U", _TEXT.kind)


def as_rows(values: npt.ArrayLike) -> np.ndarray:
    """An array of numbers, or of texts of any length."""
    rows = np.asarray(values)
    return rows.astype(_TEXT) if rows.dtype.kind == "U" else rows


def check_episode(
    episode: Mapping[str, np.ndarray], stored: Mapping[str, np.ndarray | zarr.Array]
) -> None:
    """Check the arrays (L, ...) of a new episode, and that they fit the ``stored`` ones, if any.

    Raises:
        UserError: lengths that differ or are 0, a name that cannot be stored, something else than
            numbers or texts, or keys, step shapes or types other than the stored ones.
    """
    lengths = {key: len(value) if value.ndim else 0 for key, value in episode.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise UserError(f"an episode needs arrays of one length, at least 1, but has {lengths}")
    for key, value in episode.items():
        if not key or key.startswith((".", "__")) or "/" in key:
            raise UserError(f"{key!r} cannot name an array: use a word without . and /")
        if value.dtype.kind not in "biuf" and not is_text(value.dtype):
            raise UserError(f"{key!r} has type {value.dtype}: store numbers or texts")
    if not stored:
        return
    if episode.keys() != stored.keys():
        raise UserError(
            f"the episode has keys {sorted(episode)} but the data set has {sorted(stored)}: "
            "give the same ones"
        )
    for key, value in episode.items():
        check_fits(key, value, stored[key])


def check_fits(key: str, rows: np.ndarray, array: np.ndarray | zarr.Array) -> None:
    """Check that ``rows`` can be stored in ``array``: same step shape, same kind of number.

    Raises:
        UserError: names the key and what differs.
    """
    if rows.shape[1:] != array.shape[1:]:
        raise UserError(
            f"{key!r} has steps of shape {rows.shape[1:]} but {array.shape[1:]} are stored: "
            "give that shape"
        )
    if not np.can_cast(rows.dtype, array.dtype, "same_kind"):
        raise UserError(
            f"{key!r} has type {rows.dtype} but {array.dtype} is stored: convert it first"
        )


def check_finite(array: np.ndarray, key: str, episode_ends: np.ndarray, first_row: int = 0) -> None:
    """Check that ``array`` (N, ...), rows of ``key`` from ``first_row`` on, is finite.

    Raises:
        UserError: names the key, and the episode and step of the first such value.
    """
    if array.dtype.kind != "f":
        return
    # A sum is NaN or infinite if an entry is, and needs no mask of the array's size; a finite
    # array whose sum overflows only costs the closer look.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(array.sum(dtype=np.float64)):
            return
    finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if finite.all():
        return
    bad = int(np.flatnonzero(~finite)[0])
    row = first_row + bad
    episode = int(np.searchsorted(episode_ends, row, side="right"))
    start = int(episode_ends[episode - 1]) if episode else 0
    raise UserError(
        f"data/{key} is not finite in episode {episode} at step {row - start} "
        f"(row {row}: {array[bad].ravel()[:4]}): repair or drop that episode"
    )
