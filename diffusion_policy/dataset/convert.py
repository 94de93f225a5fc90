"""Write the episodes of any store in another format: resumable, checked, whole or not there.

While it goes on, everything is in a folder ``.NAME.converting`` beside the target. A conversion
that is killed leaves it, and the same call goes on from the episodes that are whole. When all are
written and checked, the target gets its name.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from diffusion_policy.dataset.prepared_episode import (
    PictureSettings,
    Source,
    load_prepared,
    prepare_episodes,
    values_of_episode,
)
from diffusion_policy.dataset.stores.episode_store import TASK, EpisodeInfo, EpisodeStore
from diffusion_policy.dataset.stores.episode_writer import EpisodeWriter
from diffusion_policy.dataset.stores.lerobot.groot import GROOT_ENCODING, GrootWriter
from diffusion_policy.dataset.stores.lerobot.writer import LeRobotWriter
from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.dataset.stores.recorded_episode import is_picture
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.stores.zarr_writer import ZarrWriter
from diffusion_policy.dataset.verify import verify_dataset
from diffusion_policy.dataset.video.encoder import VideoEncoding
from diffusion_policy.util.atomic_file import remove, replacing, sync_tree
from diffusion_policy.util.errors import UserError, writing
from diffusion_policy.util.output_dir import OutputLock, write_atomically

Kind = Literal["zarr", "lerobot-v2.1", "lerobot-v3.0", "groot"]
KINDS: tuple[Kind, ...] = ("zarr", "lerobot-v2.1", "lerobot-v3.0", "groot")
Backend = Literal["processes", "ray"]


@dataclass(frozen=True)
class Target:
    """What to write.

    Attributes:
        kind: of the format.
        fps: recorded steps per second; None is that of the source.
        task: text of the task of episodes whose source has none.
        robot_type: None is that of the source.
        encoding: of videos; None is the usual one of the format.
        lossless: whether LeRobot data sets hold pictures as PNG instead of videos.
        reencode: whether videos are encoded anew even if their packets could be copied.
        recompute: whether statistics of pictures are made anew even where the source has some.
        modality: of GR00T; None derives it.
    """

    kind: Kind
    fps: float | None = None
    task: str | None = None
    robot_type: str | None = None
    encoding: VideoEncoding | None = None
    lossless: bool = False
    reencode: bool = False
    recompute: bool = False
    modality: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def video_encoding(self) -> VideoEncoding | None:
        """How videos are encoded; None where the format has none."""
        if self.kind == "zarr" or self.lossless:
            return None
        usual = GROOT_ENCODING if self.kind == "groot" else VideoEncoding()
        return self.encoding or usual


@dataclass(frozen=True)
class Summary:
    """What was written.

    Attributes:
        path: of the data set.
        n_episodes, n_steps: how many.
    """

    path: Path
    n_episodes: int
    n_steps: int


def convert(
    source: Source,
    path: Path,
    target: Target,
    *,
    workers: int = 1,
    backend: Backend = "processes",
    verify: bool = True,
    overwrite: bool = False,
) -> Summary:
    """Write the episodes of ``source`` to ``path``.

    Args:
        workers: processes that encode and decode pictures; 1 does so in this one.
        backend: ``ray`` spreads them over the machines of a cluster, which share the disk.
        verify: check what was written, see :func:`verify_dataset`, and compare it with the source.
        overwrite: replace a data set at ``path``, in one step at the end.

    Raises:
        UserError: the path is taken, the source or a setting does not fit the format, the disk is
            full, or what was written is not right.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists; choose another place, or remove it")
    if path.suffix == ".zip" and target.kind != "zarr":
        raise UserError(f"{path} ends in .zip, but {target.kind} is a folder: give another name")
    store = source.open()
    if not len(store.episode_ends):
        raise UserError(f"{', '.join(source.paths)} has no episodes to write")
    for key, why in store.left_out.items():
        if str(path) in source.paths:
            raise UserError(f"{why}, and would be lost; write to another place than {path}")
        warnings.warn(f"{key} is not written: {why}", stacklevel=2)
    work = path.absolute().with_name(f".{path.name}.converting")
    with writing(work), OutputLock(work):
        _resume_or_restart(work, _plan(source, store, target))
        with _removed_if_useless(work):
            writer = _writer(work / "set", store, target)
            for i, values, info in _episodes(source, store, target, writer, work, workers, backend):
                writer.add_episode(values, info)
                remove(work / f"parts/{i}")
        writer.finish()
        if verify:
            try:
                verify_dataset(work / "set")
                _compare(store, work / "set")
            except UserError:
                remove(work)  # to go on from there would end there
                raise
        if path.exists() and not overwrite:
            raise UserError(f"{path} was made meanwhile; remove it and repeat the command")
        _publish(work / "set", path)
    remove(work)
    return Summary(path, len(store.episode_ends), store.n_steps)


@contextmanager
def _removed_if_useless(work: Path) -> Iterator[None]:
    """Leave nothing behind where not a single episode could be written."""
    try:
        yield
    except UserError:
        if not _has_episodes(work / "set"):
            remove(work)
        raise


def _has_episodes(written: Path) -> bool:
    if not written.is_dir():
        return False
    try:
        return len(open_store(written).episode_ends) > 0
    except UserError:  # of LeRobot, one without episodes is none
        return False


def _plan(source: Source, store: EpisodeStore, target: Target) -> str:
    """What is to be done, as text: a killed conversion goes on only if it is the same."""
    kept = {k: f for k, f in store.features.items() if f.type == "low_dim" and not is_picture(f)}
    told = {"source": repr(source), "target": repr(target), "data": store.fingerprint(kept)}
    return json.dumps(told, indent=4)


def _resume_or_restart(work: Path, plan: str) -> None:
    path = work / "plan.json"
    if path.is_file() and path.read_text() == plan:
        return
    for name in ("set", "parts"):
        remove(work / name)
    write_atomically(path, plan.encode())


def _writer(path: Path, store: EpisodeStore, target: Target) -> EpisodeWriter:
    fps = target.fps or store.fps
    if target.kind == "zarr":
        return ZarrWriter(path, fps)
    if fps is None:
        raise UserError(
            "the source does not tell its steps per second, which LeRobot needs: give --fps"
        )
    robot, names = target.robot_type or store.embodiment, dict(store.names)
    encoding = target.video_encoding
    if target.kind == "groot":
        if encoding is None:
            raise UserError("GR00T reads videos only: leave out --lossless")
        return GrootWriter(path, fps, robot, names, target.modality, encoding, durable=False)
    version = target.kind.removeprefix("lerobot-")
    return LeRobotWriter(path, fps, version, robot, names, encoding, durable=False)


def _episodes(
    source: Source,
    store: EpisodeStore,
    target: Target,
    writer: EpisodeWriter,
    work: Path,
    workers: int,
    backend: Backend,
) -> Iterator[tuple[int, Any, EpisodeInfo]]:
    """Each episode that is not written yet, with a progress bar."""
    first, n = writer.n_episodes, len(store.episode_ends)
    keys = _keys(store, target)
    todo = range(first, n)
    prepared: Iterator[Path | None] = iter([None] * len(todo))
    fps = float(target.fps or store.fps or 1)
    settings = PictureSettings(fps, target.video_encoding, target.reencode, target.recompute)
    if (workers > 1 or backend == "ray") and any(is_picture(store.features[k]) for k in keys):
        folder = work.resolve() / "parts"
        prepared = prepare_episodes(source, folder, todo, keys, settings, workers, backend)
    desc, with_state = f"Writing {target.kind}", _have_states(store)
    with tqdm(total=n, initial=first, desc=desc, unit=" episodes", disable=None) as progress:
        for i, part in zip(todo, prepared, strict=True):
            values = values_of_episode(store, i, keys, settings)
            if TASK in values and target.task:
                values[TASK] = [text or target.task for text in values[TASK]]
            if part is not None:
                values |= load_prepared(part, values)
            yield i, values, _info(store, i, target, with_state=with_state)
            progress.update()


def _keys(store: EpisodeStore, target: Target) -> list[str]:
    """What is written; a task that is nowhere told is left out."""
    keys = list(store.features)
    if TASK in keys and (target.kind == "zarr" or target.task):
        texts = store.read(TASK, np.arange(store.n_steps))
        if not any(texts):
            keys.remove(TASK)
    return keys


def _info(store: EpisodeStore, i: int, target: Target, *, with_state: bool) -> EpisodeInfo:
    found = store.episode(i)
    task = found.task or target.task
    return EpisodeInfo(found.initial_state if with_state else None, task or None, found.source)


def _have_states(store: EpisodeStore) -> bool:
    """Whether all episodes have an initial state; a warning where only some have one."""
    n = len(store.episode_ends)
    n_known = sum(store.episode(i).initial_state is not None for i in range(n))
    if 0 < n_known < n:
        warnings.warn(
            f"only {n_known} of {n} episodes have an initial state: all are left out", stacklevel=3
        )
    return n_known == n


def _compare(store: EpisodeStore, path: Path) -> None:
    """Check that numbers and texts are those of the source.

    Raises:
        UserError: they are not.
    """
    written = Source((str(path),)).open()
    fields = {
        key: f
        for key, f in store.features.items()
        if f.type in ("low_dim", "text") and not is_picture(f) and key != TASK
    }
    same = np.array_equal(store.episode_ends, written.episode_ends)
    if not same or store.fingerprint(fields) != written.fingerprint(fields):
        raise UserError(
            f"what was written to {path} differs from the source: the source changed meanwhile, or "
            "the disk is faulty; repeat the command"
        )


def _publish(written: Path, path: Path) -> None:
    """Give the data set its name."""
    if path.suffix == ".zip":
        buffer = ReplayBuffer.create_from_path(written)
        buffer.save_to_path(path, if_exists="replace")
        return
    sync_tree(written)  # while a failure still leaves it to go on from
    with replacing(path) as temporary:
        written.rename(temporary)
