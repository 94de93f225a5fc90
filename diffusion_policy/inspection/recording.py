"""A data set as checks look at it: vectors as a whole, images as a few small ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np

from diffusion_policy.dataset.stores.episode_store import EpisodeStore
from diffusion_policy.dataset.stores.open_store import open_undecoded
from diffusion_policy.dataset.task_of_store import as_seen
from diffusion_policy.spec.task_spec import Field
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.frames import even_steps

THUMBNAIL = 16
"""Pixels of a side of the images that checks compare."""
_MOST_EPISODES = 200  # whose images are looked at, evenly spaced
_FRAMES = 3  # of each of them: first, middle, last


def open_recording(path: str) -> Recording:
    """The data set at a path, of which only what is looked at is decoded.

    Raises:
        UserError: it cannot be opened, or holds no episode.
    """
    store = open_undecoded(path)
    if not len(store.episode_ends):
        raise UserError(f"{path} holds no episode; record some or choose another data set")
    return Recording(store)


@dataclass(frozen=True)
class Finding:
    """Something suspicious.

    Attributes:
        check: name of the check that found it.
        message: what and where, in one line.
        episodes: numbers of the episodes that it is about; () is all of them.
    """

    check: str
    message: str
    episodes: tuple[int, ...] = ()


@dataclass
class Recording:
    """Recorded episodes, and what of them cannot be read.

    Attributes:
        store: of the episodes.
        broken: by key, why it cannot be read; filled while it is looked at.
    """

    store: EpisodeStore
    broken: dict[str, str] = field(default_factory=dict)

    @cached_property
    def fields(self) -> Mapping[str, Field]:
        """The features, pictures stored as floats as what they show."""
        return {key: as_seen(found) for key, found in self.store.features.items()}

    @cached_property
    def vectors(self) -> Mapping[str, np.ndarray]:
        """(N, D) float32 of every vector, by key."""
        return dict(self._read_vectors())

    def _read_vectors(self) -> Iterator[tuple[str, np.ndarray]]:
        steps = np.arange(self.store.n_steps)
        for key, found in self.fields.items():
            if found.type != "low_dim":
                continue
            try:
                self.store.prepare({key: self.store.features[key]})
                values = np.asarray(self.store.read(key, steps))
            except UserError as error:
                self.broken[key] = str(error)
            else:
                yield key, values.reshape(len(steps), -1)

    @cached_property
    def cameras(self) -> tuple[str, ...]:
        """Images that can be read, by name."""
        readable = []
        for key, found in self.fields.items():
            if found.type == "rgb":
                try:
                    self.store.prepare({key: found})
                    self.store.read(key, np.arange(1))
                    readable.append(key)
                except UserError as error:
                    self.broken[key] = str(error)
        return tuple(readable)

    @property
    def lengths(self) -> np.ndarray:
        """(E,) steps of each episode."""
        return np.diff(self.store.episode_ends, prepend=0)

    @property
    def n_episodes(self) -> int:
        """Number of episodes E."""
        return len(self.store.episode_ends)

    def bounds(self, episode: int) -> tuple[int, int]:
        """First step of an episode, and one past its last."""
        ends = self.store.episode_ends
        return int(ends[episode - 1]) if episode else 0, int(ends[episode])

    def place(self, step: int) -> tuple[int, int]:
        """Episode of a step, and its number there."""
        episode = int(np.searchsorted(self.store.episode_ends, step, side="right"))
        return episode, step - self.bounds(episode)[0]

    @cached_property
    def changes(self) -> Mapping[str, np.ndarray]:
        """(N, D) of each vector: the change from the step before, 0 at starts of episodes."""
        starts = np.concatenate([[0], self.store.episode_ends[:-1]])
        found = {}
        for key, values in self.vectors.items():
            found[key] = np.diff(values, axis=0, prepend=values[:1])
            found[key][starts] = 0
        return found

    @cached_property
    def sampled(self) -> tuple[int, ...]:
        """Episodes whose images are looked at."""
        return tuple(even_steps(self.n_episodes - 1, _MOST_EPISODES))

    @cached_property
    def thumbnails(self) -> Mapping[str, np.ndarray]:
        """(E', F, THUMBNAIL, THUMBNAIL, 3) float32 by camera, of the sampled episodes.

        F frames are first, middle and last of each episode.
        """
        found = {}
        for key in self.cameras:
            try:
                images = [self._thumbnails(key, episode) for episode in self.sampled]
            except UserError as error:
                self.broken[key] = str(error)
            else:
                found[key] = np.stack(images)
        return found

    def _thumbnails(self, key: str, episode: int) -> np.ndarray:
        first, end = self.bounds(episode)
        steps = np.linspace(first, end - 1, _FRAMES).round().astype(int)
        return np.stack([small(image, THUMBNAIL, THUMBNAIL) for image in self.images(key, steps)])

    def images(self, key: str, steps: np.ndarray) -> np.ndarray:
        """(n, H, W, 3) uint8 of a camera.

        Raises:
            UserError: they cannot be read.
        """
        return np.moveaxis(np.asarray(self.store.read(key, np.asarray(steps))), 1, -1)


def small(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image (H, W, 3) uint8 in another size, as floats: means over areas."""
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
