"""What every writer must do. A new one joins by an entry in WRITERS."""

from __future__ import annotations

import errno
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import pytest

from diffusion_policy.dataset.stores.episode_store import EpisodeInfo
from diffusion_policy.dataset.stores.episode_writer import EpisodeWriter
from diffusion_policy.dataset.stores.lerobot.groot import GrootWriter
from diffusion_policy.dataset.stores.lerobot.metadata import read_metadata
from diffusion_policy.dataset.stores.lerobot.parquet import open_parquet
from diffusion_policy.dataset.stores.lerobot.writer import LeRobotWriter
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.stores.zarr_writer import ZarrWriter
from diffusion_policy.dataset.video.encoder import VideoEncoding
from diffusion_policy.util.errors import UserError

FPS = 10
LENGTHS = (4, 1, 6)
TASKS = ("push", "pull")


def episode(length: int, number: int) -> dict[str, np.ndarray | list[str]]:
    """Values that tell episode and step apart; pictures of one colour survive every codec."""
    steps = np.arange(length)
    colour = (100 * (number % 3) + 7 * steps) % 256
    return {
        "observation.state": np.stack([steps, steps + number], axis=1).astype(np.float32),
        "front": np.broadcast_to(colour[:, None, None, None], (length, 3, 32, 48)).astype(np.uint8),
        "count": steps + 2**40 * number,
        "label": [f"step {step}" for step in steps],
        "action": np.random.default_rng(number).normal(size=(length, 2)),
    }


def info(number: int) -> EpisodeInfo:
    return EpisodeInfo(np.array([number, 0.1]), TASKS[number % 2])


@dataclass
class Found:
    """An episode as it was read back; pictures as their mean over the pixels of a step."""

    values: dict[str, np.ndarray | list[str]] = field(default_factory=dict)
    initial_state: tuple[float, ...] = ()
    task: str = ""


def from_zarr(path: Path) -> list[Found]:
    buffer = ReplayBuffer.create_from_path(path)
    states = buffer.read_meta("initial_state")
    found = []
    for i in range(buffer.n_episodes):
        values = dict(buffer.get_episode(i))
        (task,) = set(values.pop("task").tolist())
        values["front"] = values["front"].mean(axis=(1, 2, 3))
        values["label"] = values["label"].tolist()
        found.append(Found(values, tuple(states[i]), task))
    return found


def from_lerobot(path: Path) -> list[Found]:
    metadata = read_metadata(path)
    assert metadata.fps == FPS
    found = []
    for record in metadata.episodes:
        table = open_parquet(record.data_file).read().slice(record.first_row, record.length)
        values = {name: table[name].to_pylist() for name in table.column_names}
        (task,) = {metadata.tasks[i] for i in values["task_index"]}
        assert record.tasks == (task,)
        assert values["frame_index"] == list(range(record.length))
        times = np.arange(record.length) / FPS
        np.testing.assert_allclose(values["timestamp"], times, atol=1e-6)
        kept = {k: np.array(values[k]) for k in ("observation.state", "count", "action")}
        front = read_segment(record.videos["front"], record.length)
        kept |= {"label": values["label"], "front": front.mean(axis=(1, 2, 3))}
        found.append(Found(kept, record.initial_state, task))
    return found


def read_segment(segment, length: int) -> np.ndarray:
    with av.open(str(segment.path)) as container:
        stream = container.streams.video[0]
        frames = {
            round(float(frame.pts * stream.time_base) * FPS, 6): frame.to_ndarray(format="rgb24")
            for frame in container.decode(video=0)
        }
    first = round(segment.from_timestamp * FPS, 6)
    return np.stack([frames[first + k] for k in range(length)])


@dataclass(frozen=True)
class Case:
    """How to write a data set, and how to read it without a store."""

    write: Callable[[Path], EpisodeWriter]
    read: Callable[[Path], list[Found]]


WRITERS = {
    "zarr": Case(lambda path: ZarrWriter(path, FPS), from_zarr),
    "lerobot-v2.1": Case(lambda path: LeRobotWriter(path, FPS, "v2.1"), from_lerobot),
    "lerobot-v3.0": Case(lambda path: LeRobotWriter(path, FPS), from_lerobot),
    "lerobot-v3.0 in small files": Case(
        lambda path: LeRobotWriter(path, FPS, data_mb=0.02, video_mb=0.004), from_lerobot
    ),
    "groot": Case(lambda path: GrootWriter(path, FPS), from_lerobot),
}


@pytest.fixture(params=WRITERS)
def case(request) -> Case:
    return WRITERS[request.param]


def assert_holds(found: list[Found], numbers: list[int], lengths: list[int]) -> None:
    assert len(found) == len(numbers)
    for one, number, length in zip(found, numbers, lengths, strict=True):
        wanted = episode(length, number)
        assert one.task == info(number).task
        assert one.initial_state == (number, 0.1)
        assert one.values.keys() == wanted.keys()
        assert one.values["label"] == wanted["label"]
        for key in ("observation.state", "count", "action"):
            np.testing.assert_array_equal(one.values[key], wanted[key])
        np.testing.assert_allclose(
            one.values["front"], wanted["front"].mean(axis=(1, 2, 3)), atol=2.5
        )


@pytest.mark.slow
def test_each_episode_can_be_read_when_it_is_added(case, tmp_path):
    writer = case.write(tmp_path / "set")
    for i, length in enumerate(LENGTHS):
        writer.add_episode(episode(length, i), info(i))
        assert writer.n_episodes == i + 1
        assert_holds(case.read(tmp_path / "set"), [*range(i + 1)], LENGTHS[: i + 1])
    writer.finish()
    assert_holds(case.read(tmp_path / "set"), [0, 1, 2], LENGTHS)


@pytest.mark.slow
def test_another_writer_goes_on_before_and_after_the_end(case, tmp_path):
    path, lengths = tmp_path / "set", []
    for i in range(5):
        writer = case.write(path)
        assert writer.n_episodes == i
        writer.add_episode(episode(3 + i, i), info(i))
        lengths.append(3 + i)
        if i in (1, 3):
            writer.finish()
            writer.finish()
        assert_holds(case.read(path), [*range(i + 1)], lengths)


def test_a_block_that_succeeds_finishes(case, tmp_path):
    with case.write(tmp_path / "set") as writer:
        writer.add_episode(episode(2, 0), info(0))
    assert_holds(case.read(tmp_path / "set"), [0], [2])
    leftovers = [p.name for p in tmp_path.rglob("*") if "partial" in p.name or "writing" in p.name]
    assert leftovers == []


def test_what_does_not_fit_is_refused_and_nothing_is_lost(case, tmp_path):
    writer = case.write(tmp_path / "set")
    with pytest.raises(UserError, match="one length"):
        writer.add_episode({**episode(3, 0), "action": np.zeros((2, 2))}, info(0))
    with pytest.raises(UserError, match="one length"):
        writer.add_episode(episode(0, 0), info(0))
    with pytest.raises(UserError, match="'a/b' cannot name"):
        writer.add_episode({**episode(3, 0), "a/b": np.zeros((3, 2))}, info(0))
    writer.add_episode(episode(3, 0), info(0))
    wrong = {
        "shape|is float": {"action": np.zeros((3, 5))},
        "type|is complex": {"action": np.zeros((3, 2), complex)},
        "shape|is video": {"front": np.zeros((3, 3, 16, 16), np.uint8)},
        "keys": {"another": np.zeros((3, 1))},
    }
    for message, change in wrong.items():
        with pytest.raises(UserError, match=message):
            writer.add_episode({**episode(3, 1), **change}, info(1))
    writer.add_episode(episode(2, 1), info(1))
    assert_holds(case.read(tmp_path / "set"), [0, 1], [3, 2])


def test_a_place_that_holds_something_else_is_refused(case, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=str(tmp_path / "set")):
        case.write(tmp_path / "set").add_episode(episode(2, 0), info(0))
    assert [p.name for p in (tmp_path / "set").iterdir()] == ["thesis.txt"]


def full_after(monkeypatch, n: int) -> None:
    """Let the disk be full once, at the ``n``-th file that is put in place or synced."""
    left = n

    def failing(change):
        def wrapped(*args, **kwargs):
            nonlocal left
            left -= 1
            if left == -1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return change(*args, **kwargs)

        return wrapped

    monkeypatch.setattr(Path, "replace", failing(Path.replace))
    monkeypatch.setattr(os, "fsync", failing(os.fsync))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:steps beyond the last episode end")
@pytest.mark.filterwarnings("ignore:.*has total_tasks 1, but 2 are listed")
@pytest.mark.parametrize("retries", [True, False])
def test_a_full_disk_loses_the_episode_alone_and_the_writer_goes_on(case, tmp_path, retries):
    n_failures, left = 0, set()
    for n in itertools.count():
        path = tmp_path / str(n)
        writer = case.write(path)
        writer.add_episode(episode(3, 0), info(0))
        try:
            with pytest.MonkeyPatch.context() as patch:
                full_after(patch, n)
                writer.add_episode(episode(2, 1), info(1))
        except UserError:
            n_failures += 1
        else:
            break
        if retries:
            writer.add_episode(episode(4, 2), info(2))
        writer.finish()
        # If all but the last sync succeeded, the episode is there.
        found, others = case.read(path), [2] if retries else []
        numbers = [0, *others] if len(found) == 1 + len(others) else [0, 1, *others]
        assert_holds(found, numbers, [(3, 2, 4)[number] for number in numbers])
        left.add(1 in numbers)
    assert n_failures >= 1
    assert False in left


@pytest.mark.parametrize(
    ("version", "change", "key"),
    [
        ("v2.1", {"chunks_size": 2}, "chunks_size"),
        ("v2.1", {"data_path": "rows/{episode_chunk}/{episode_index}.parquet"}, "data_path"),
        ("v3.0", {"chunks_size": 2}, "chunks_size"),
        ("v3.0", {"fps": 20}, "fps"),
    ],
)
def test_a_data_set_whose_files_have_other_names_is_not_added_to(tmp_path, version, change, key):
    path = tmp_path / "set"
    with LeRobotWriter(path, FPS, version) as writer:
        writer.add_episode(episode(2, 0), info(0))
    told = json.loads((path / "meta/info.json").read_text())
    (path / "meta/info.json").write_text(json.dumps(told | change))
    before = sorted(path.rglob("*"))
    with pytest.raises(UserError, match=f"has {key} .*: write to another folder"):
        LeRobotWriter(path, FPS, version)
    assert sorted(path.rglob("*")) == before


@pytest.mark.parametrize("fps", [0, -1, float("nan")])
def test_a_rate_that_cannot_be_is_refused(tmp_path, fps):
    with pytest.raises(UserError, match="fps is"):
        LeRobotWriter(tmp_path / "set", fps)


# ---------------------------------------------------------------------- killed at any moment


def die_before_change(kill_at: int) -> None:
    """Make this process kill itself before its ``kill_at``-th change of the folder's entries."""
    count = 0

    def counting(change):
        def wrapped(*args, **kwargs):
            nonlocal count
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return change(*args, **kwargs)

        return wrapped

    for owner, names in (
        (Path, ("replace", "rename", "unlink")),
        (shutil, ("rmtree",)),
        (os, ("link",)),
    ):
        for name in names:
            setattr(owner, name, counting(getattr(owner, name)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:steps beyond the last episode end")
def test_a_kill_at_any_change_loses_no_earlier_episode(case, tmp_path):
    original = tmp_path / "original"
    writer = case.write(original)
    for i in range(2):
        writer.add_episode(episode(3, i), info(i))

    def run(path: Path, kill_at: int) -> None:
        victim = case.write(path)
        die_before_change(kill_at)
        victim.add_episode(episode(3, 2), info(2))
        victim.finish()

    exit_code, kill_at, left = None, 0, set()
    while exit_code != 0:
        path = Path(shutil.copytree(original, tmp_path / str(kill_at)))
        process = multiprocessing.get_context("fork").Process(target=run, args=(path, kill_at))
        process.start()
        process.join()
        exit_code = process.exitcode
        assert exit_code in (0, -signal.SIGKILL)
        found = case.read(path)
        left.add(len(found))
        assert_holds(found, [*range(len(found))], [3] * len(found))
        # Going on after the kill works and leaves no trace of it.
        with case.write(path) as writer:
            writer.add_episode(episode(2, 7), info(7))
        assert_holds(case.read(path), [*range(len(found)), 7], [*[3] * len(found), 2])
        names = [p.name for p in path.rglob("*")]
        assert not [name for name in names if name.endswith((".writing", ".old"))]
        videos = [name for name in names if name.endswith(".mp4")]
        assert len(videos) <= len(found) + 1
        shutil.rmtree(path)
        kill_at += 1
    assert kill_at >= 3
    assert left == {2, 3}


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["av1", "h264"])
def test_a_kill_inside_the_encoder_loses_one_episode(tmp_path, codec):
    script = f"""
import itertools, sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from diffusion_policy.dataset.stores.lerobot.writer import LeRobotWriter
from diffusion_policy.dataset.video.encoder import VideoEncoding
from tests.dataset.stores.test_writer_contract import episode, info
writer = LeRobotWriter({str(tmp_path / "set")!r}, 10, encoding=VideoEncoding({codec!r}))
for i in itertools.count():
    writer.add_episode(episode(40, i), info(i))
    print(i, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        for _ in range(3):
            told = int(process.stdout.readline())
        time.sleep(0.03)
        process.kill()
        told = int((process.stdout.read().split() or [told])[-1])
    writer = LeRobotWriter(tmp_path / "set", 10, encoding=VideoEncoding(codec))
    assert writer.n_episodes in (told + 1, told + 2)
    writer.finish()
    n = writer.n_episodes
    assert_holds(from_lerobot(tmp_path / "set"), [*range(n)], [40] * n)
