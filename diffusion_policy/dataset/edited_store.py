"""A view of recorded episodes, some of them chosen, cut, joined or renamed; nothing is copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from diffusion_policy.dataset.stores.episode_store import (
    TASK,
    EpisodeInfo,
    EpisodeStore,
    require_feature,
    require_key,
)
from diffusion_policy.dataset.video.packet_copy import Part
from diffusion_policy.dataset.video.segment import VideoSegment
from diffusion_policy.spec.task_spec import Field
from diffusion_policy.util.errors import UserError

Piece = tuple[int, int]
"""First step and the one after the last, counted over all stores one after another."""


@dataclass(frozen=True)
class Edit:
    """What to change.

    Attributes:
        episodes: the pieces of each episode, in order; None keeps all as they are.
        keys: new and old name of each key that is kept; None keeps all.
        task: text of the task of all episodes; None keeps theirs.
    """

    episodes: tuple[tuple[Piece, ...], ...] | None = None
    keys: tuple[tuple[str, str], ...] | None = None
    task: str | None = None


@dataclass(frozen=True)
class Place:
    """A piece in its store.

    Attributes:
        store: that holds it.
        episode: number in that store.
        offset: steps of that episode before the piece.
        length: of the piece in steps.
        is_whole: whether the piece is the whole episode.
    """

    store: EpisodeStore
    episode: int
    offset: int
    length: int
    is_whole: bool


class EditedStore(EpisodeStore):
    """Episodes of one or more stores of equal keys, edited.

    Args:
        stores: read one after another.
        edit: what to change.

    Raises:
        UserError: the stores have different keys or rates, or a key or step does not exist.
    """

    def __init__(self, stores: Sequence[EpisodeStore], edit: Edit) -> None:
        _require_alike(stores)
        self.stores, self.edit = list(stores), edit
        self._first_steps = np.cumsum([0, *(store.n_steps for store in stores)])
        found = stores[0].features
        names = edit.keys if edit.keys is not None else tuple((key, key) for key in found)
        for _, old in names:
            require_key(found, old)
        self._old = dict(names)
        if len(self._old) < len(names):
            raise UserError(f"two keys would get one name: {sorted(new for new, _ in names)}")
        self._features = {new: found[old] for new, old in names}
        whole = tuple((piece,) for piece in whole_episodes(stores))
        self._episodes = whole if edit.episodes is None else edit.episodes
        for first, stop in (piece for pieces in self._episodes for piece in pieces):
            if not 0 <= first < stop <= self._first_steps[-1]:
                raise UserError(f"there are no steps {first} to {stop}: give others")

    @property
    def episode_ends(self) -> np.ndarray:
        """See :class:`EpisodeStore`."""
        return self._ends

    @cached_property
    def _ends(self) -> np.ndarray:
        lengths = [sum(stop - first for first, stop in pieces) for pieces in self._episodes]
        return np.cumsum(lengths, dtype=np.int64)

    @cached_property
    def _source_steps(self) -> np.ndarray:
        """Of each step (N,), its number among those of all stores."""
        ranges = [np.arange(*piece) for pieces in self._episodes for piece in pieces]
        return np.concatenate(ranges) if ranges else np.zeros(0, np.int64)

    @property
    def features(self) -> Mapping[str, Field]:
        """See :class:`EpisodeStore`."""
        return self._features

    @property
    def fps(self) -> float | None:
        """See :class:`EpisodeStore`."""
        return self.stores[0].fps

    @property
    def embodiment(self) -> str | None:
        """See :class:`EpisodeStore`."""
        return self.stores[0].embodiment

    @property
    def names(self) -> Mapping[str, Any]:
        """See :class:`EpisodeStore`."""
        found = self.stores[0].names
        return {new: found[old] for new, old in self._old.items() if old in found}

    @property
    def left_out(self) -> Mapping[str, str]:
        """See :class:`EpisodeStore`."""
        return {key: why for store in self.stores for key, why in store.left_out.items()}

    def prepare(self, fields: Mapping[str, Field]) -> None:
        """See :class:`EpisodeStore`."""
        for key, field in fields.items():
            require_key(self._features, key)
            if field.type == self._features[key].type:  # told under the new name
                require_feature(self._features, key, field)
        for store in self.stores:
            store.prepare({self._old[key]: field for key, field in fields.items()})

    def read(self, key: str, steps: np.ndarray) -> np.ndarray | list[str]:
        """See :class:`EpisodeStore`."""
        return self._read("read", key, steps)

    def read_recorded(self, key: str, steps: np.ndarray) -> np.ndarray | list[str]:
        """See :class:`EpisodeStore`."""
        return self._read("read_recorded", key, steps)

    def _read(
        self, how: Literal["read", "read_recorded"], key: str, steps: np.ndarray
    ) -> np.ndarray | list[str]:
        require_key(self._features, key)
        steps = np.asarray(steps)
        if key == TASK and self.edit.task is not None:
            return [self.edit.task] * len(steps)
        source = self._source_steps[steps]
        holder = np.searchsorted(self._first_steps, source, side="right") - 1
        used = np.unique(holder)
        if len(used) <= 1:
            n = int(used[0]) if len(used) else 0
            return getattr(self.stores[n], how)(self._old[key], source - self._first_steps[n])
        parts = {
            n: getattr(self.stores[n], how)(
                self._old[key], source[holder == n] - self._first_steps[n]
            )
            for n in used.tolist()
        }
        if self._features[key].type == "text":
            texts = {n: iter(part) for n, part in parts.items()}
            return [next(texts[n]) for n in holder.tolist()]
        first = next(iter(parts.values()))
        out = np.empty((*steps.shape, *np.shape(first)[1:]), np.result_type(*parts.values()))
        for n, part in parts.items():
            out[holder == n] = part
        return out

    def episode(self, i: int) -> EpisodeInfo:
        """See :class:`EpisodeStore`; one that begins later than it was recorded has no state."""
        places = self.places(i)
        found = places[0].store.episode(places[0].episode)
        return EpisodeInfo(
            found.initial_state if places[0].offset == 0 else None,
            self.edit.task if self.edit.task is not None else found.task,
            found.source,
        )

    def places(self, i: int) -> list[Place]:
        """Where the pieces of an episode lie; a piece is cut where a recorded episode ends."""
        places = []
        for first, stop in self._episodes[i]:
            while first < stop:
                n = int(np.searchsorted(self._first_steps, first, side="right")) - 1
                store, base = self.stores[n], int(self._first_steps[n])
                episode = int(np.searchsorted(store.episode_ends, first - base, side="right"))
                start = base + (int(store.episode_ends[episode - 1]) if episode else 0)
                end = base + int(store.episode_ends[episode])
                length = min(stop, end) - first
                is_whole = first == start and length == end - start
                places.append(Place(store, episode, first - start, length, is_whole))
                first += length
        return places

    def recorded_key(self, key: str) -> str:
        """The name of a key in the stores."""
        return self._old[key]

    def video(self, key: str, episode: int) -> VideoSegment | None:
        """See :class:`EpisodeStore`; None for an episode of several pieces."""
        parts = self.video_parts(key, episode)
        return parts[0].segment if parts is not None and len(parts) == 1 else None

    def video_parts(self, key: str, i: int) -> list[Part] | None:
        """The videos of the pieces of an episode; None where one of them is no video."""
        parts = []
        for place in self.places(i):
            segment = place.store.video(self._old[key], place.episode)
            if segment is None or not self.fps:
                return None
            start = segment.from_timestamp + place.offset / self.fps
            parts.append(Part(VideoSegment(segment.path, start), place.length))
        return parts


def _require_alike(stores: Sequence[EpisodeStore]) -> None:
    """Check that data sets can be read as one.

    Raises:
        UserError: names the first difference.
    """
    first = stores[0]
    for store in stores[1:]:
        if store.features != first.features:
            different = sorted(
                key
                for key in {*first.features, *store.features}
                if first.features.get(key) != store.features.get(key)
            )
            raise UserError(
                f"the data sets differ in {', '.join(different)}: rename, drop or convert these "
                "keys first"
            )
        told = first.names.keys() & store.names.keys()
        if different := sorted(key for key in told if first.names[key] != store.names[key]):
            raise UserError(
                f"the numbers of {', '.join(different)} have other names in the data sets: only "
                "those of equal names and order can be merged"
            )
        if store.fps != first.fps:
            raise UserError(
                f"the data sets were recorded at {first.fps} and {store.fps} steps per second: "
                "only those of one rate can be merged"
            )


def whole_episodes(stores: Sequence[EpisodeStore]) -> list[Piece]:
    """Each episode of the stores as one piece."""
    pieces, before = [], 0
    for store in stores:
        ends = [before, *(before + store.episode_ends).tolist()]
        pieces += list(pairwise(ends))
        before = ends[-1]
    return pieces


def choose_episodes(
    pieces: Sequence[Piece],
    *,
    kept: Sequence[int] | None = None,
    deleted: Sequence[int] = (),
    splits: Mapping[int, Sequence[int]] | None = None,
    merged: Sequence[Sequence[int]] = (),
) -> tuple[tuple[Piece, ...], ...]:
    """Episodes for an :class:`Edit`; all numbers are those before the edit.

    Args:
        pieces: each episode as it is.
        kept: in this order; None keeps all.
        deleted: left out.
        splits: by episode, the steps of it at which another one begins.
        merged: groups that become one episode each, in the place of their first.

    Raises:
        UserError: an episode or a step does not exist, is named twice, or none is left.
    """
    splits = splits or {}
    named = [*deleted, *splits, *(i for group in merged for i in group)]
    for i in [*named, *(kept or ())]:
        if not 0 <= i < len(pieces):
            raise UserError(f"there is no episode {i}, only 0 to {len(pieces) - 1}")
    for numbers in (named, kept or ()):
        if len(set(numbers)) < len(numbers):
            twice = next(i for i in numbers if list(numbers).count(i) > 1)
            raise UserError(f"episode {twice} is named twice: delete, split or merge it once")
    for group in merged:
        if lost := [i for i in group if kept is not None and i not in kept]:
            raise UserError(f"episode {lost[0]} is merged but not kept: keep all of a group")
    episodes: list[tuple[Piece, ...]] = []
    later = {i for group in merged for i in group[1:]}
    groups = {group[0]: group for group in merged}
    for i in range(len(pieces)) if kept is None else kept:
        if i in deleted or i in later:
            continue
        if i in splits:
            episodes += _cut(i, pieces[i], splits[i])
        else:
            episodes.append(tuple(pieces[j] for j in groups.get(i, (i,))))
    if not episodes:
        raise UserError("no episode is left: keep at least one")
    return tuple(episodes)


def _cut(i: int, piece: Piece, steps: Sequence[int]) -> list[tuple[Piece, ...]]:
    first, stop = piece
    bounds = [first, *(first + step for step in steps), stop]
    if any(a >= b for a, b in pairwise(bounds)):
        raise UserError(
            f"episode {i} has {stop - first} steps and cannot be split at "
            f"{', '.join(map(str, steps))}: give increasing steps inside it"
        )
    return [((a, b),) for a, b in pairwise(bounds)]


def rename_keys(
    features: Mapping[str, Field],
    *,
    renamed: Mapping[str, str] | None = None,
    dropped: Sequence[str] = (),
    swapped: Sequence[tuple[str, str]] = (),
) -> tuple[tuple[str, str], ...]:
    """The keys for an :class:`Edit`.

    Args:
        renamed: new name by old one.
        dropped: left out.
        swapped: pairs that exchange their names.

    Raises:
        UserError: a key does not exist, or two would get one name.
    """
    new_names = {key: key for key in features}
    for old, new in {**(renamed or {}), **{a: b for p in swapped for a, b in (p, p[::-1])}}.items():
        require_key(features, old)
        new_names[old] = new
    for key in dropped:
        require_key(features, key)
        del new_names[key]
    names = list(new_names.values())
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two keys would be called {name!r}: rename or drop one of them")
    return tuple((new, old) for old, new in new_names.items())
