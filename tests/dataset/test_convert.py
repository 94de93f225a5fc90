"""Data sets keep every number from format to format, whatever dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from diffusion_policy.dataset import convert as convert_module
from diffusion_policy.dataset.convert import KINDS, Target, convert
from diffusion_policy.dataset.prepared_episode import (
    PictureSettings,
    Source,
    _Preparation,
    load_prepared,
    values_of_episode,
)
from diffusion_policy.dataset.stores.lerobot.metadata import read_metadata
from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.verify import verify_dataset
from diffusion_policy.dataset.video.encoder import VideoEncoding
from diffusion_policy.scripts.convert_dataset import main
from diffusion_policy.util.errors import UserError
from tests.dataset.stores.hdf5_files import write_robomimic
from tests.dataset.stores.lerobot.golden import GOLDEN

LENGTHS = (6, 1, 4)
ROOT = Path(__file__).parents[2]


def recorded_zarr(path: Path, lengths=LENGTHS, size=(32, 48)) -> Path:
    """Numbers of several types, smooth pictures, texts, tasks and initial states."""
    buffer = ReplayBuffer.create_from_path(path, mode="a")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: size[0], : size[1]]
    for i, length in enumerate(lengths):
        shades = 20 + 30 * i + 5 * np.arange(length)[:, None, None] + (rows + columns) // 2
        buffer.add_episode(
            {
                "state": rng.normal(size=(length, 5)).astype(np.float32),
                "big": 2**60 + rng.integers(0, 99, length),
                "exact": rng.normal(size=(length, 2, 3)),
                "image": np.stack([shades, shades // 2, 255 - shades], axis=1).astype(np.uint8),
                "depth": rng.integers(0, 5000, (length, 1, 8, 9)).astype(np.uint16),
                "note": [f"note {k}" for k in range(length)],
                "task": [("push", "pull")[(i + k // 3) % 2] for k in range(length)],
                "action": rng.normal(size=(length, 2)).astype(np.float32),
            }
        )
    buffer.update_meta({"initial_state": rng.normal(size=(len(lengths), 5))})
    return path


def assert_same(found: Path, wanted: Path, tolerance: float) -> None:
    """All arrays are equal, but for pictures, whose pixels are near each other."""
    a, b = ReplayBuffer.create_from_path(found), ReplayBuffer.create_from_path(wanted)
    assert a.episode_ends.tolist() == b.episode_ends.tolist()
    assert set(a.keys()) == set(b.keys())
    for key in b.keys():  # noqa: SIM118 -- a buffer is no dict
        x, y = a.read(key), b.read(key)
        if key == "image":
            assert np.abs(x.astype(int) - y).max() <= tolerance
        else:
            np.testing.assert_array_equal(x.reshape(y.shape), y)
            assert x.dtype == y.dtype
    np.testing.assert_array_equal(a.read_meta("initial_state"), b.read_meta("initial_state"))


def run(source, target, kind, **options) -> None:
    names = ("workers", "overwrite", "backend")
    settings = {name: options.pop(name) for name in names if name in options}
    opened = Source((str(source),), cache_dir=str(target.parent / "cache"))
    convert(opened, target, Target(kind, **options), **settings)


@pytest.mark.slow
def test_the_round_trip_keeps_every_number(tmp_path):
    original = recorded_zarr(tmp_path / "a.zarr")
    steps = [("lerobot-v2.1", "b"), ("lerobot-v3.0", "c"), ("groot", "d"), ("zarr", "e.zarr")]
    source = original
    for kind, name in steps:
        run(source, tmp_path / name, kind, fps=10 if kind == "lerobot-v2.1" else None)
        source = tmp_path / name
    assert_same(source, original, tolerance=12)  # encoded twice, as av1 and h264
    names = {p.name for p in tmp_path.iterdir()} - {"cache"}
    assert names == {"a.zarr", "b", "c", "d", "e.zarr"}
    states = [open_store(tmp_path / "c").episode(i).initial_state for i in range(3)]
    wanted = ReplayBuffer.create_from_path(original).read_meta("initial_state")
    np.testing.assert_array_equal(states, wanted)


@pytest.mark.slow
def test_without_videos_pictures_keep_every_pixel(tmp_path):
    original = recorded_zarr(tmp_path / "a.zarr")
    run(original, tmp_path / "b", "lerobot-v3.0", fps=10, lossless=True)
    run(tmp_path / "b", tmp_path / "c.zarr.zip", "zarr")
    assert_same(tmp_path / "c.zarr.zip", original, tolerance=0)


@pytest.mark.slow
def test_numbers_of_hdf5_keep_their_type(tmp_path):
    write_robomimic(tmp_path / "a.hdf5", (5, 3))
    exact = np.random.default_rng(0).normal(size=(5, 7))
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        for name, values in (("demo_0", exact), ("demo_1", exact[:3] + 1)):
            del file["data"][name]["actions"]
            file["data"][name]["actions"] = values
    run(tmp_path / "a.hdf5", tmp_path / "b", "lerobot-v3.0", fps=20, task="lift")
    found = open_store(tmp_path / "b", tmp_path / "cache")
    actions = np.asarray(found.read_recorded("action", np.arange(8)))
    assert actions.dtype == np.float64
    np.testing.assert_array_equal(actions, np.concatenate([exact, exact[:3] + 1]))
    assert read_metadata(tmp_path / "b").robot_type == "Panda"
    store = open_store(tmp_path / "a.hdf5", tmp_path / "cache")
    mixed = store.read_recorded("action", np.array([6, 0, 4]))
    np.testing.assert_array_equal(mixed, actions[[6, 0, 4]])


def test_packets_are_copied_where_the_codec_is_the_wanted_one(tmp_path, monkeypatch):
    def fail(*_):
        raise AssertionError("encoded anew")

    monkeypatch.setattr("diffusion_policy.dataset.stores.lerobot.video_files.encode_frames", fail)
    run(GOLDEN / "v30", tmp_path / "a", "lerobot-v2.1")
    run(tmp_path / "a", tmp_path / "b", "lerobot-v3.0")
    with pytest.raises(AssertionError, match="encoded anew"):
        run(tmp_path / "b", tmp_path / "c", "groot")
    with pytest.raises(AssertionError, match="encoded anew"):
        run(tmp_path / "b", tmp_path / "c", "lerobot-v3.0", reencode=True)
    steps = np.arange(36)
    for key in ("observation.images.front", "observation.images.wrist"):
        wanted = open_store(GOLDEN / "v30", tmp_path / "cache").read(key, steps)
        for name in "ab":
            found = open_store(tmp_path / name, tmp_path / "cache").read(key, steps)
            np.testing.assert_array_equal(found, wanted)


def test_names_robot_and_tasks_are_kept(tmp_path):
    run(GOLDEN / "v30", tmp_path / "a", "groot")
    before, after = read_metadata(GOLDEN / "v30"), read_metadata(tmp_path / "a")
    assert after.robot_type == before.robot_type == "so101_follower"
    assert after.features["action"].names == before.features["action"].names
    assert after.tasks == before.tasks
    assert [set(e.tasks) for e in after.episodes] == [set(e.tasks) for e in before.episodes]
    assert after.features["observation.images.front"].info["video.codec"] == "h264"


def test_settings_go_before_what_the_source_tells(tmp_path):
    buffer = ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a")
    picture = np.full((3, 3, 16, 16), 40, np.uint8)
    buffer.add_episode({"image": picture, "action": np.zeros((3, 2))})
    encoding = VideoEncoding("h264")
    settings = {"fps": 5, "task": "wait", "robot_type": "arm", "encoding": encoding}
    run(tmp_path / "a.zarr", tmp_path / "b", "lerobot-v2.1", **settings)
    metadata = read_metadata(tmp_path / "b")
    assert (metadata.fps, metadata.tasks, metadata.robot_type) == (5, ("wait",), "arm")
    assert metadata.features["image"].info["video.codec"] == "h264"
    run(tmp_path / "b", tmp_path / "c.zarr", "zarr")
    assert set(open_store(tmp_path / "c.zarr").read("task", np.arange(3))) == {"wait"}


def test_a_data_set_without_tasks_comes_back_without(tmp_path):
    buffer = ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a")
    buffer.add_episode({"action": np.zeros((3, 2))})
    run(tmp_path / "a.zarr", tmp_path / "b", "lerobot-v3.0", fps=5)
    run(tmp_path / "b", tmp_path / "c.zarr", "zarr")
    assert list(ReplayBuffer.create_from_path(tmp_path / "c.zarr").keys()) == ["action"]


def test_pictures_stored_as_floats_become_videos(tmp_path):
    """As the published PushT data have them."""
    buffer = ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a")
    pictures = np.broadcast_to(np.float32(7 * np.arange(4))[:, None, None, None], (4, 16, 16, 3))
    buffer.add_episode({"img": pictures, "action": np.zeros((4, 2), np.float32)})
    run(tmp_path / "a.zarr", tmp_path / "b", "lerobot-v3.0", fps=10)
    assert read_metadata(tmp_path / "b").features["img"].dtype == "video"
    found = open_store(tmp_path / "b", tmp_path / "cache").read("img", np.arange(4))
    assert np.abs(found.mean(axis=(1, 2, 3)) - 7 * np.arange(4)).max() < 2
    buffer.edit(2, {"img": pictures[:1] + 0.5})
    with pytest.raises(UserError, match="whole numbers in"):
        run(tmp_path / "a.zarr", tmp_path / "c", "lerobot-v3.0", fps=10)


@pytest.mark.slow
def test_what_cannot_be_converted_is_told_and_leaves_nothing_under_the_name(tmp_path):
    source = recorded_zarr(tmp_path / "a.zarr")
    with pytest.raises(UserError, match="give --fps"):
        run(source, tmp_path / "b", "lerobot-v3.0")
    with pytest.raises(UserError, match="--lossless"):
        run(source, tmp_path / "b", "groot", fps=10, lossless=True)
    with pytest.raises(UserError, match="ends in"):
        run(source, tmp_path / "b.zip", "groot", fps=10)
    modality = {"state": {"arm": {"start": 0, "end": 9, "original_key": "state"}}}
    with pytest.raises(UserError, match="0 to 9 of 'state', which has 5"):
        run(source, tmp_path / "b", "groot", fps=10, modality=modality)
    assert {p.name for p in tmp_path.iterdir()} <= {"a.zarr", "cache"}
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="exists"):
        run(source, tmp_path / "b", "lerobot-v3.0", fps=10)
    run(source, tmp_path / "b", "lerobot-v3.0", fps=10, overwrite=True)
    verify_dataset(tmp_path / "b")


@pytest.mark.slow
def test_what_was_not_written_right_is_thrown_away(tmp_path, monkeypatch):
    source = recorded_zarr(tmp_path / "a.zarr")
    real = values_of_episode

    def wrong(*args):
        values = real(*args)
        return {**values, "state": values["state"] + np.float32(1e-3)}

    monkeypatch.setattr(convert_module, "values_of_episode", wrong)
    with pytest.raises(UserError, match="differs from the source"):
        run(source, tmp_path / "b", "lerobot-v2.1", fps=10)
    assert {p.name for p in tmp_path.iterdir()} <= {"a.zarr", "cache"}
    monkeypatch.undo()
    run(source, tmp_path / "b", "lerobot-v2.1", fps=10)


def test_a_name_that_lerobot_cannot_have_is_told(tmp_path):
    buffer = ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a")
    buffer.add_episode({"timestamp": np.zeros(3), "action": np.zeros((3, 2))})
    with pytest.raises(UserError, match="'timestamp' is a column that LeRobot fills"):
        run(tmp_path / "a.zarr", tmp_path / "b", "lerobot-v3.0", fps=10)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_conversion_goes_on(tmp_path, kind, monkeypatch):
    source = recorded_zarr(tmp_path / "a.zarr")

    class Killed(BaseException):
        pass

    real = convert_module._episodes
    seen: list[int] = []

    def dying(*args):
        for i, values, info in real(*args):
            if len(seen) == 2:
                raise Killed
            seen.append(i)
            yield i, values, info

    monkeypatch.setattr(convert_module, "_episodes", dying)
    with pytest.raises(Killed):
        run(source, tmp_path / "b", kind, fps=10)
    assert not (tmp_path / "b").exists()
    seen.clear()
    run(source, tmp_path / "b", kind, fps=10)
    assert seen == [2]
    monkeypatch.undo()
    verify_dataset(tmp_path / "b")
    run(tmp_path / "b", tmp_path / "c.zarr", "zarr")
    assert_same(tmp_path / "c.zarr", source, tolerance=12)


@pytest.mark.slow
def test_other_settings_start_again(tmp_path, monkeypatch):
    source = recorded_zarr(tmp_path / "a.zarr")
    monkeypatch.setattr(convert_module, "_publish", lambda *_: exit(1))
    with pytest.raises(SystemExit):
        run(source, tmp_path / "b", "lerobot-v3.0", fps=10)
    monkeypatch.undo()
    run(source, tmp_path / "b", "lerobot-v3.0", fps=20)
    assert read_metadata(tmp_path / "b").fps == 20


@pytest.mark.slow
def test_a_kill_from_outside_with_workers_leaves_no_process_and_goes_on(tmp_path):
    source = recorded_zarr(tmp_path / "a.zarr", lengths=(30,) * 20, size=(96, 96))
    command = [sys.executable, "-m", "diffusion_policy.scripts.convert_dataset", str(source)]
    command += [str(tmp_path / "b"), "--to", "lerobot-v3.0", "--fps", "10", "--workers", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    info = tmp_path / ".b.converting/set/meta/info.json"
    for _ in range(4000):  # processes start slowly on a busy machine
        if info.is_file() and '"total_episodes": 0' not in info.read_text():
            break
        time.sleep(0.05)
    children = children_of(process.pid)
    assert len(children) >= 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(600):  # workers look after their parent every five seconds
        if not any(Path(f"/proc/{child}").exists() for child in children):
            break
        time.sleep(0.1)
    else:
        raise AssertionError("a worker lives on")
    assert not (tmp_path / "b").exists()
    done = read_metadata(tmp_path / ".b.converting/set")
    assert len(done.episodes) >= 1
    run(source, tmp_path / "b", "lerobot-v3.0", fps=10.0)
    verify_dataset(tmp_path / "b")
    assert not (tmp_path / ".b.converting").exists()
    assert len(read_metadata(tmp_path / "b").episodes) == 20


@pytest.mark.slow
def test_what_a_process_prepares_is_what_is_written(tmp_path):
    source = Source((str(recorded_zarr(tmp_path / "a.zarr")),))
    store = source.open()
    for encoding in (None, VideoEncoding()):
        settings = PictureSettings(10, encoding)
        folder = tmp_path / str(encoding is None)
        assert _Preparation(source, folder, (0, 2), ("image", "state"), settings)[1] == ""
        values = values_of_episode(store, 2, ["image", "state"], settings)
        (key,) = prepared = load_prepared(folder / "2", values)
        assert key == "image"
        if encoding is None:
            np.testing.assert_array_equal(prepared["image"], values["image"][:])
        else:
            assert prepared["image"].encoded.statistics["count"] == [4]
            assert prepared["image"].encoded.parts[0].length == 4
    message = _Preparation(source, tmp_path / "c", (0,), ("nothing",), settings)[0]
    assert "has no 'nothing'" in message


def children_of(process: int) -> list[int]:
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in found]


@pytest.mark.slow
def test_ray_prepares_episodes(tmp_path):
    ray = pytest.importorskip("ray")
    source = recorded_zarr(tmp_path / "a.zarr")
    run(source, tmp_path / "b", "lerobot-v3.0", workers=2, backend="ray", fps=10)
    assert not ray.is_initialized()
    run(tmp_path / "b", tmp_path / "c.zarr", "zarr")
    assert_same(tmp_path / "c.zarr", source, tolerance=12)


@pytest.mark.slow
def test_the_command_says_what_it_wrote(tmp_path, capsys):
    source = recorded_zarr(tmp_path / "a.zarr")
    main([str(source), str(tmp_path / "b"), "--to", "lerobot-v3.0", "--fps", "10"])
    assert (
        capsys.readouterr().out.strip().endswith("b: lerobot-v3.0, 3 episodes, 11 steps, verified")
    )
    with pytest.raises(SystemExit):
        main([str(source), str(tmp_path / "b"), "--to", "zarr"])
    assert "exists; choose another place" in capsys.readouterr().err
    for options, message in (
        (["--fps", "-1"], "--fps is -1"),
        (["--workers", "0"], "--workers is 0"),
        (["--crf", "90"], "crf of av1 is 90"),
    ):
        with pytest.raises(SystemExit):
            main([str(source), str(tmp_path / "c"), "--to", "lerobot-v3.0", *options])
        assert message in capsys.readouterr().err


def test_a_data_set_is_found_whose_replacement_was_killed(tmp_path):
    source = recorded_zarr(tmp_path / "a.zarr", lengths=(2,))
    run(source, tmp_path / "arm", "lerobot-v3.0", fps=10)
    (tmp_path / "arm").rename(tmp_path / ".arm.old")  # between the two renames
    assert len(open_store(tmp_path / "arm", tmp_path / "cache").episode_ends) == 1


def test_what_was_written_survives_a_full_disk_at_the_end(tmp_path, monkeypatch):
    source = recorded_zarr(tmp_path / "a.zarr")

    def full(path):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(convert_module, "sync_tree", full)
        with pytest.raises(UserError, match="No space left"):
            run(source, tmp_path / "arm", "lerobot-v3.0", fps=10)
    encoded = "diffusion_policy.dataset.stores.lerobot.video_files.encode_frames"
    monkeypatch.setattr(encoded, None)  # nothing is encoded again
    run(source, tmp_path / "arm", "lerobot-v3.0", fps=10)
    assert len(open_store(tmp_path / "arm", tmp_path / "cache").episode_ends) == len(LENGTHS)


def test_a_target_that_was_made_meanwhile_stays(tmp_path, monkeypatch):
    source = recorded_zarr(tmp_path / "a.zarr", lengths=(2,))

    def meanwhile(path):
        (tmp_path / "arm").mkdir()

    monkeypatch.setattr(convert_module, "verify_dataset", meanwhile)
    with pytest.raises(UserError, match="was made meanwhile"):
        run(source, tmp_path / "arm", "lerobot-v3.0", fps=10)
    assert list((tmp_path / "arm").iterdir()) == []


def test_a_given_task_goes_to_the_steps_that_have_none(tmp_path):
    buffer = ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a")
    for text in ("push", ""):
        buffer.add_episode({"action": np.zeros((2, 1), np.float32), "task": [text] * 2})
    run(tmp_path / "a.zarr", tmp_path / "arm", "lerobot-v2.1", fps=10, task="pull")
    assert open_store(tmp_path / "arm").read("task", np.arange(4)) == ["push"] * 2 + ["pull"] * 2
