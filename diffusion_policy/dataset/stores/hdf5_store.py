"""Episodes in an HDF5 file, as robomimic and Isaac Lab record them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusion_policy.dataset.image_cache import cached_images, check_cache
from diffusion_policy.dataset.stores.checks import check_finite
from diffusion_policy.dataset.stores.episode_store import (
    EpisodeInfo,
    EpisodeStore,
    mismatch,
    read_rows,
    require_key,
)
from diffusion_policy.dataset.stores.hdf5_file import (
    OpenFile,
    arrays_below,
    find_array,
    find_at,
    find_group,
    find_member,
    is_group,
    json_attribute,
    naming_file,
    require_plausible,
)
from diffusion_policy.dataset.stores.hdf5_images import Hdf5Images, axes_of
from diffusion_policy.spec.task_spec import Field
from diffusion_policy.transforms.images import resized
from diffusion_policy.util.errors import UserError

if TYPE_CHECKING:
    import h5py

_DEMO = re.compile(r"demo_(\d{1,9})")
_LEAST_IMAGE = 16  # pixels of a side; a smaller array of floats is a table
_BLOCK = 256  # images read at a time
_MOST_STATE = 10**6  # numbers of the state of a simulator


class Hdf5Store(EpisodeStore):
    """A file in the layout of robomimic (any version) or of Isaac Lab.

    ``data/demo_<i>`` is an episode, in the order of the numbers. Its ``actions`` are the action,
    every array of its ``obs`` is a feature of that name, and ``rewards`` and ``dones`` are
    ``next.reward`` and ``next.done``. Images (N, H, W, 3) uint8 are rgb. The initial state is the
    first row of ``states`` (robomimic), or all arrays of ``initial_state``, one after another in
    the order of their names (Isaac Lab).

    Vectors are read into memory. Images are read when they are asked for; packed ones are unpacked
    once into a file that is mapped.

    Args:
        path: of the file.
        cache_dir: where unpacked images are kept.
        filter: episodes to read: a list in ``mask`` of the file, such as ``20_percent``, or
            ``success`` for those whose attribute of that name is true; None reads all.
        cache: of images: none, disk or memory; None is disk for packed ones that are not large.
        action: array of an episode that is the action, such as ``actions_abs``.

    Raises:
        UserError: h5py is missing; the file is damaged or has no episodes, or not that list; an
            episode has no actions or another number of them than it says.
    """

    def __init__(
        self,
        path: str | Path,
        cache_dir: str | Path = "data/cache",
        *,
        filter: str | None = None,
        cache: str | None = None,
        action: str = "actions",
    ) -> None:
        check_cache(cache)
        self.path, self.cache_dir, self.cache = Path(path), Path(cache_dir), cache
        self._file = OpenFile(path)
        self._prepared: dict[str, np.ndarray] = {}
        self._checked: set[str] = set()  # keys that every episode has alike
        self._images: dict[str, np.ndarray | Hdf5Images] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        with naming_file(path):
            data = find_group(self._file.root, "data")
            if data is None:
                raise UserError("it has no group data; give a file of robomimic or Isaac Lab")
            self.demos = _chosen(data, filter, find_group(self._file.root, "mask"))
            lengths = [_length(_demo(data, name), action) for name in self.demos]
            self._episode_ends = np.cumsum(lengths, dtype=np.int64)
            env_args = json_attribute(data, "env_args")
            self._fps, self._embodiment = _fps(env_args), _robot(env_args)
            self._places = _places(_demo(data, self.demos[0]), action)
            self._features: dict[str, Field] = {}
            self._left_out: dict[str, str] = {}
            for key in self._places:
                try:
                    self._features[key] = _feature(self._array(key, 0))
                except UserError as error:
                    if key == "action":
                        raise
                    self._left_out[key] = str(error)

    @property
    def episode_ends(self) -> np.ndarray:
        """See :class:`EpisodeStore`."""
        return self._episode_ends

    @property
    def features(self) -> Mapping[str, Field]:
        """See :class:`EpisodeStore`."""
        return self._features

    @property
    def fps(self) -> float | None:
        """See :class:`EpisodeStore`; from ``env_args``, where they tell it."""
        return self._fps

    @property
    def embodiment(self) -> str | None:
        """See :class:`EpisodeStore`; the robots of robomimic's ``env_args``."""
        return self._embodiment

    @property
    def left_out(self) -> Mapping[str, str]:
        """See :class:`EpisodeStore`."""
        return self._left_out

    def scale(self, key: str, height: int, width: int) -> bool:
        """See :class:`EpisodeStore`; images are scaled when they are read or unpacked."""
        field = self._features.get(key)
        if field is None or field.type != "rgb" or key in self._images:
            return False
        self._sizes[key] = (height, width)
        return True

    def prepare(self, fields: Mapping[str, Field]) -> None:
        """Read vectors into memory, and check the arrays of all episodes.

        Raises:
            UserError: a key is missing in an episode, does not fit its field or has another length
                than the actions, or depth is not finite.
        """
        with naming_file(self.path):
            for key, field in fields.items():
                self._check(key, field)
                if field.type == "low_dim":
                    self._prepared[key] = self._vectors(key, field)
                    continue
                source = self._source(key, field)
                plain = self.cache is None and source.is_plain
                images = cached_images(source, key, "none" if plain else self.cache, self.cache_dir)
                self._images[key] = source if images is None else images
                if field.type == "depth":
                    for first in range(0, self.n_steps, _BLOCK):
                        steps = np.arange(first, min(first + _BLOCK, self.n_steps))
                        values = np.asarray(self.read(key, steps))
                        check_finite(values, key, self._episode_ends, first)

    def read(self, key: str, steps: np.ndarray) -> np.ndarray | list[str]:
        """See :class:`EpisodeStore`; a key that was not prepared is prepared first."""
        if key not in self._prepared and key not in self._images:
            self._require(key)
            self.prepare({key: self._features[key]})
        if key in self._prepared:
            return read_rows(self._prepared[key], steps)
        images = self._images[key]
        if isinstance(images, np.ndarray):
            return read_rows(images, steps)
        return images.read(steps.ravel()).reshape(*steps.shape, *images.shape)

    def read_recorded(self, key: str, steps: np.ndarray) -> np.ndarray | list[str]:
        """See :class:`EpisodeStore`; vectors keep their type."""
        self._require(key)
        field = self._features[key]
        if field.type != "low_dim":
            return self.read(key, steps)
        with naming_file(self.path):
            if key not in self._checked:
                self._check(key, field)
                self._checked.add(key)
            holders = np.searchsorted(self._episode_ends, steps, side="right")
            out = np.empty((len(steps), *field.shape), self._array(key, 0).dtype)
            for i in np.unique(holders).tolist():
                first = self._episode_ends[i - 1] if i else 0
                rows = self._array(key, i)[()][steps[holders == i] - first]
                out[holders == i] = rows.reshape(-1, *field.shape)
        return out

    def episode(self, i: int) -> EpisodeInfo:
        """See :class:`EpisodeStore`."""
        name = self.demos[i]
        with naming_file(self.path):
            data = self._file.root["data"]
            demo = _demo(data, name)
            return EpisodeInfo(_initial_state(demo), _task(demo, data), f"{self.path}, {name}")

    def _require(self, key: str) -> None:
        if key in self._left_out:
            raise UserError(self._left_out[key])
        require_key(self._features, key)

    def _array(self, key: str, episode: int) -> h5py.Dataset:
        """The array of a key in an episode.

        Raises:
            UserError: it is missing, or cannot be read.
        """
        place, name = self._places[key], self.demos[episode]
        array = find_at(_demo(self._file.root["data"], name), place)
        if array is None:
            raise UserError(
                f"{name} has no {place}, which {self.demos[0]} has; record it in every episode, or "
                "leave it out of shape_meta"
            )
        return array

    def _check(self, key: str, field: Field) -> None:
        """Check that a key fits its field, and that every episode has it alike."""
        self._require(key)
        first = self._array(key, 0)
        found = self._features[key]
        if field.type == "low_dim":
            fits = found.type == "low_dim" and found.size == field.size
        else:
            fits = field.type in ("rgb", "depth") and axes_of(first.shape[1:], field) is not None
            fits = fits and (first.dtype == np.uint8) == (field.type == "rgb")
        if not fits:
            raise mismatch(key, field, f"{first.dtype} {list(first.shape[1:])}")
        lengths = np.diff(self._episode_ends, prepend=0)
        for i, length in enumerate(lengths):
            array = self._array(key, i)
            if array.shape[:1] != (length,):
                raise UserError(
                    f"{array.name.lstrip('/')} has shape {list(array.shape)} but {self.demos[i]} "
                    f"has {length} actions; record one row per action"
                )
            if (array.shape[1:], array.dtype) != (first.shape[1:], first.dtype):
                raise UserError(
                    f"{array.name.lstrip('/')} holds {array.dtype} {list(array.shape[1:])} a step "
                    f"but {first.name.lstrip('/')} {first.dtype} {list(first.shape[1:])}; record "
                    "them alike"
                )

    def _vectors(self, key: str, field: Field) -> np.ndarray:
        """(N, *field.shape) float32."""
        n_bytes = 4 * self.n_steps * field.size
        require_plausible(n_bytes, key, self._file.root)
        out = np.empty((self.n_steps, *field.shape), np.float32)
        start = 0
        for i, end in enumerate(self._episode_ends.tolist()):
            out[start:end] = self._array(key, i)[()].reshape(end - start, *field.shape)
            start = end
        return out

    def _source(self, key: str, field: Field) -> Hdf5Images:
        """What reads these images."""
        places = [f"data/{demo}/{self._places[key]}" for demo in self.demos]
        change = changed = None
        if key in self._sizes:
            height, width = self._sizes[key]
            change, changed = partial(resized, height=height, width=width), (3, height, width)
        return Hdf5Images(
            self._file, places, self._episode_ends, field, self.cache_dir, change, changed
        )


def _chosen(data: h5py.Group, filter: str | None, mask: h5py.Group | None) -> list[str]:
    """Names of the episodes to read, in the order of their numbers."""
    names = list(data)
    if other := [name for name in names if not _DEMO.fullmatch(name)]:
        raise UserError(f"data holds {other[0][:100]!r}; call every episode demo_<number>")
    if not names:
        raise UserError("data holds no demo; record some or choose another data set")
    if filter is not None:
        names = _filtered(data, names, str(filter), mask)
    return sorted(names, key=lambda name: (int(_DEMO.fullmatch(name)[1]), name))  # type: ignore[index]


def _filtered(
    data: h5py.Group, names: Sequence[str], filter: str, mask: h5py.Group | None
) -> list[str]:
    field = f"task.dataset.filter is {filter!r}"
    known = [] if mask is None else list(mask)
    if filter in known:
        kept = _names(mask, filter, len(names))
    elif filter == "success":
        kept = [name for name in names if bool(np.all(_demo(data, name).attrs.get("success", 0)))]
    else:
        raise UserError(f"{field}; use one of {', '.join(known) or 'success'}, or null for all")
    if absent := [name for name in kept if name not in names]:
        raise UserError(f"{field}, which lists {absent[0][:100]!r}, but there is no such demo")
    if not kept:
        raise UserError(f"{field}, which keeps no episode; use another one, or null for all")
    return list(dict.fromkeys(kept))


def _names(mask: Any, name: str, most: int) -> list[str]:
    """The names of demos that a list of the file holds, as texts or bytes."""
    import h5py

    array = find_array(mask, name)
    is_text = array is not None and h5py.check_string_dtype(array.dtype) is not None
    if array is None or not is_text or array.ndim != 1 or len(array) > most:
        raise UserError(f"mask/{name} is no list of demos; fetch the file again")
    return [text.decode(errors="replace") for text in array[()].tolist()]


def _demo(data: h5py.Group, name: str) -> h5py.Group:
    demo = find_group(data, name)
    if demo is None:
        raise UserError(f"data/{name} cannot be found; fetch the file again")
    return demo


def _length(demo: h5py.Group, action: str) -> int:
    actions = find_at(demo, action)
    name = demo.name.lstrip("/")
    if actions is None:
        raise UserError(f"{name} has no {action}; it has {', '.join(demo) or 'nothing'}")
    if actions.ndim == 0 or len(actions) == 0:
        raise UserError(f"{name}/{action} has shape {list(actions.shape)}; drop the empty episode")
    told = demo.attrs.get("num_samples")
    if isinstance(told, int | np.integer) and told != len(actions):
        raise UserError(
            f"{name} has {len(actions)} {action} but says num_samples {told}; fetch it again"
        )
    return len(actions)


def _fps(env_args: Mapping[str, Any]) -> float | None:
    """Control steps per second: robomimic's ``control_freq``, or Isaac Lab's ``sim_args``."""
    kwargs, simulation = (
        found if isinstance(found := env_args.get(name), Mapping) else {}
        for name in ("env_kwargs", "sim_args")
    )
    try:
        fps = kwargs.get("control_freq") or 1 / (
            float(simulation["dt"]) * float(simulation["decimation"])
        )
        fps = round(float(fps), 6)  # 1 / (0.01 * 2) is not quite 50
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return fps if 0 < fps < math.inf else None


def _robot(env_args: Mapping[str, Any]) -> str | None:
    kwargs = env_args.get("env_kwargs")
    robots = kwargs.get("robots") if isinstance(kwargs, Mapping) else None
    robots = [robots] if isinstance(robots, str) else robots
    if not isinstance(robots, list) or not all(isinstance(robot, str) for robot in robots):
        return None
    return "_".join(robots) or None


def _places(demo: h5py.Group, action: str) -> dict[str, str]:
    """Paths of the features within an episode, by key."""
    beside = {"action": action, "next.reward": "rewards", "next.done": "dones"}
    obs, present = find_group(demo, "obs"), set(demo)
    return {
        **{name: f"obs/{name}" for name in obs or ()},
        **{key: name for key, name in beside.items() if key == "action" or name in present},
    }


def _feature(array: h5py.Dataset) -> Field:
    """What an array (N, ...) seems to hold, by its type and shape.

    Raises:
        UserError: neither numbers nor pictures.
    """
    shape = array.shape[1:]
    if array.ndim == 0 or array.dtype.kind not in "biuf":
        raise UserError(
            f"{array.name.lstrip('/')} holds {array.dtype} {list(array.shape)}, which are no rows "
            "of numbers; leave it out of shape_meta"
        )
    if array.dtype == np.uint8 and len(shape) == 3 and 3 in (shape[0], shape[-1]):
        return Field(shape if shape[-1] != 3 else (3, *shape[:2]), "rgb", "VISUAL")
    sides = [size for size in shape if size != 1]
    is_picture = len(sides) == 2 and min(sides) >= _LEAST_IMAGE
    if is_picture and (array.dtype == np.uint16 or (array.dtype.kind == "f" and len(shape) == 3)):
        return Field((1, *sides), "depth", "DEPTH")
    return Field(shape or (1,))


def _initial_state(demo: h5py.Group) -> np.ndarray | None:
    """(S,) of the simulator."""
    tree = find_group(demo, "initial_state")
    if tree is not None:
        arrays = arrays_below(tree).values()
        if not arrays or sum(array.size for array in arrays) > _MOST_STATE:
            return None
        return np.concatenate([np.asarray(array[()], float).reshape(-1) for array in arrays])
    states = find_member(demo, "states")
    if states is None or is_group(states):  # Isaac Lab's is a group
        return None
    states = find_array(demo, "states")
    return None if states is None or states.ndim != 2 else np.asarray(states[0], float)


def _task(demo: h5py.Group, data: h5py.Group) -> str | None:
    """What the robot was told to do: of the episode, or of all of them."""
    found = (
        json_attribute(demo, "ep_meta").get("lang"),
        json_attribute(data, "problem_info").get("language_instruction"),
        json_attribute(data, "env_args").get("prompt"),
    )
    for text in found:
        if isinstance(text, list) and len(text) == 1:
            (text,) = text
        if isinstance(text, str) and text.strip():
            return text
    return None
