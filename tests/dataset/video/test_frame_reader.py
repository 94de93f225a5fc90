from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from diffusion_policy.dataset.video import decoder
from diffusion_policy.dataset.video.frame_reader import FrameReader
from diffusion_policy.dataset.video.frame_table import read_frame_table
from diffusion_policy.util.errors import UserError
from tests.dataset.stores.lerobot.small_dataset import decoded, encode, small_images

N = 24
QUIET = "log-level=error"
CODINGS = {
    "av1": ("libsvtav1", {"g": "2", "preset": "12"}),
    "av1, long": ("libsvtav1", {"g": "12", "preset": "12"}),
    "h264": ("libx264", {"g": "2", "bf": "0"}),
    "h264 with B frames": ("libx264", {"g": "12", "bf": "3"}),
    "h264, open": ("libx264", {"x264-params": "open-gop=1:keyint=8:bframes=3"}),
    "hevc": ("libx265", {"x265-params": f"keyint=8:bframes=0:{QUIET}"}),
    "hevc, open": ("libx265", {"x265-params": f"open-gop=1:keyint=8:bframes=3:{QUIET}"}),
}


@pytest.fixture(scope="module", params=CODINGS, ids=lambda name: name.replace(", ", "-"))
def video(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    codec, options = CODINGS[request.param]
    encode(path, small_images(N, height=64, width=96), codec, options)
    return path


def read(reader: FrameReader, steps: np.ndarray, files: np.ndarray | None = None) -> np.ndarray:
    out = np.zeros((len(steps), *reader.shape), np.uint8)
    files = np.zeros(len(steps), int) if files is None else files
    reader.read_into(out, files, steps / 10)
    return out


def test_any_frame_is_the_one_that_is_decoded_in_turn(video):
    expected = decoded(video)
    reader = FrameReader([video], (3, 64, 96), N)
    for steps in (np.random.default_rng(0).permutation(N), np.array([5, 5, 0, 5]), np.arange(N)):
        np.testing.assert_array_equal(read(reader, steps), expected[steps])
    for step in range(N):  # each from its key frame
        np.testing.assert_array_equal(read(reader, np.array([step])), expected[[step]])


def test_the_table_tells_times_and_keys(video):
    table = read_frame_table(video, N)
    np.testing.assert_allclose(table.times[table.shown], np.arange(N) / 10, atol=1e-4)
    assert table.keys[0] == 0
    starts = table.starts(table.find(np.arange(N) / 10))
    assert set(starts) <= set(table.keys)


def test_a_group_of_frames_is_decoded_once(tmp_path, monkeypatch):
    encode(tmp_path / "a.mp4", small_images(N), options={"g": "12", "bf": "0"})
    decoded_packets = []
    original = decoder.av.Packet

    def counted(content: bytes):
        decoded_packets.append(len(content))
        return original(content)

    reader = FrameReader([tmp_path / "a.mp4"], (3, 32, 48), N)
    n_keys = len(reader.table(0).keys)
    monkeypatch.setattr(decoder.av, "Packet", counted)
    read(reader, np.random.default_rng(0).permutation(N))
    assert n_keys >= 2
    assert len(decoded_packets) == N


def test_one_decoder_serves_all_files_of_a_camera(tmp_path, monkeypatch):
    monkeypatch.setattr("diffusion_policy.util.threads.usable_cores", lambda: 1)
    paths = [tmp_path / f"{i}.mp4" for i in range(20)]
    for i, path in enumerate(paths):
        encode(path, small_images(3, seed=i))
    reader = FrameReader(paths, (3, 32, 48), 3)
    decoder._kept.__dict__.clear()
    files = np.arange(20)
    found = read(reader, np.ones(20), files)
    for file, frame in zip(paths, found, strict=True):
        np.testing.assert_array_equal(frame, decoded(file)[1])
    assert len(decoder._kept.decoders) == 1


def test_frames_are_changed_where_they_are_decoded(tmp_path):
    encode(tmp_path / "a.mp4", small_images(4))
    reader = FrameReader([tmp_path / "a.mp4"], (3, 32, 48), 4, change=lambda x: x[:, ::2, ::2])
    out = np.zeros((4, 3, 16, 24), np.uint8)
    reader.read_into(out, np.zeros(4, int), np.arange(4) / 10)
    np.testing.assert_array_equal(out, decoded(tmp_path / "a.mp4")[:, :, ::2, ::2])


def test_a_reader_can_be_pickled(tmp_path):
    encode(tmp_path / "a.mp4", small_images(4))
    reader = FrameReader([tmp_path / "a.mp4"], (3, 32, 48), 4)
    wanted = read(reader, np.arange(4))
    copy = pickle.loads(pickle.dumps(reader))
    np.testing.assert_array_equal(read(copy, np.arange(4)), wanted)


def test_a_time_between_frames_is_refused(tmp_path):
    encode(tmp_path / "a.mp4", small_images(4))
    reader = FrameReader([tmp_path / "a.mp4"], (3, 32, 48), 4)
    for steps in ([0.002], [-1], [4], [1.5]):
        with pytest.raises(UserError, match="has no frame at"):
            read(reader, np.array(steps))
    np.testing.assert_array_equal(read(reader, np.array([1.0005])), read(reader, np.array([1])))


def damaged(path: Path, kind: str) -> None:
    content = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a video")
    elif kind == "cut":
        path.write_bytes(content[: len(content) * 2 // 3])
    elif kind == "zeroed":  # behind the index
        start = content.index(b"mdat") + 4
        path.write_bytes(content[:start] + bytes(len(content) - start))
    elif kind == "mpeg4":
        encode(path, small_images(4), "mpeg4")
    elif kind == "size":
        encode(path, small_images(4, height=48, width=64))
    elif kind == "long":
        encode(path, small_images(9))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind", ["missing", "empty", "text", "cut", "zeroed", "mpeg4", "size", "long"]
)
def test_what_is_wrong_with_a_file_is_told_in_one_line(tmp_path, kind):
    path = tmp_path / "a.mp4"
    encode(path, small_images(4))
    damaged(path, kind)
    reader = FrameReader([path], (3, 32, 48), 8)
    with pytest.raises(UserError, match=r"a\.mp4") as told:
        read(reader, np.arange(4))
    assert "\n" not in str(told.value)
