"""What people's own data get wrong: each is one line, with the cause and a remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.dataset.window_dataset import WindowDataset
from diffusion_policy.spec.window import Window
from diffusion_policy.util.errors import UserError
from tests.dataset.stores.hdf5_files import write_robomimic
from tests.dataset.stores.lerobot.golden import golden_copy
from tests.dataset.stores.test_damage import files_of_at_most

pytest.importorskip("pyarrow")
from diffusion_policy.dataset.stores.lerobot.writer import LeRobotWriter
from tests.inspection.test_repair import change_column

STATE = {"observation.state": {"shape": [6]}}
FRONT = {"observation.images.front": {"shape": [3, 48, 64], "type": "rgb"}}
LEROBOT = {"obs": {**STATE, **FRONT}, "action": {"shape": [6]}}
ROBOMIMIC = {"obs": {"robot0_eef_pos": {"shape": [3]}}, "action": {"shape": [7]}}


def info(**values: object) -> Callable[[Path], None]:
    """Set values of info.json; those that are None are removed."""

    def change(root: Path) -> None:
        path = root / "meta/info.json"
        content = json.loads(path.read_text()) | values
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))

    return change


def column(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda root: change_column(sorted(root.glob("data/*/*.parquet"))[0], name, change)


def no_video(root: Path) -> None:
    sorted(root.glob("videos/**/*front*/**/*.mp4"))[0].unlink()


def unknown_codec(root: Path) -> None:
    path = sorted(root.glob("videos/**/*front*/**/*.mp4"))[0]
    data = path.read_bytes()
    assert b"av01" in data
    path.write_bytes(data.replace(b"av01", b"zz99"))


def short_video(root: Path) -> None:
    front, wrist = (sorted(root.glob(f"videos/**/*{c}*/**/*.mp4")) for c in ("front", "wrist"))
    # Of version 2.1: the video of an episode of 9 steps where one of 12 belongs.
    front[0].write_bytes((front[1] if len(front) > 1 else wrist[0]).read_bytes())


def _with(values: np.ndarray, row: int, value: float) -> np.ndarray:
    values[row] = value
    return values


BOTH = {
    "no codebase version": (info(codebase_version=None), "has no codebase_version, so its layout"),
    "newer codebase version": (
        info(codebase_version="v4.0"),
        r"codebase_version v4\.0, but read are .*v3\.0; fetch the revision of a version before",
    ),
    "older codebase version": (info(codebase_version="v1.6"), r"v1\.6, .*; convert it with"),
    "absent video": (no_video, r"front.*mp4.* (is missing|cannot be read|does not exist)"),
    "undecodable codec": (unknown_codec, r"front.*mp4.*(codec|decode|video)"),
    "rows against info.json": (info(total_frames=35), "has total_frames 35, but .* are 36; fetch"),
    "episodes against info.json": (info(total_episodes=2), "total_episodes 2, but .* are 3; fetch"),
    "gap of the index": (
        column("index", lambda index: _with(index, 5, 99)),
        "has index 99 in row 5, where 5 belongs: steps are missing or out of order",
    ),
    "time off the grid": (
        column("timestamp", lambda times: _with(times, 4, 0.43)),
        r"has timestamp 0\.43\d* in row 4, but step 4 at 10 steps per second is at 0\.4000 s",
    ),
    "template that leads out": (
        info(data_path="../../x.parquet"),
        "data_path is .*, which leads out of the data set",
    ),
}


@pytest.mark.parametrize("version", ["v21", "v30"])
@pytest.mark.parametrize("wrong", BOTH)
def test_what_is_wrong_with_a_lerobot_data_set_is_told(tmp_path, version, wrong):
    change, message = BOTH[wrong]
    root = golden_copy(version, tmp_path)
    change(root)
    refused(root, LEROBOT, message)


def test_a_video_of_another_length_is_told(tmp_path):
    root = golden_copy("v21", tmp_path)
    short_video(root)
    refused(root, LEROBOT, r"episode_000000\.mp4.* 9 frames|has no frame")


def test_rows_of_a_file_that_are_not_those_of_its_episode_are_told(tmp_path):
    root = golden_copy("v21", tmp_path)
    path = root / "meta/episodes.jsonl"
    path.write_text(path.read_text().replace('"length": 9', '"length": 10'))
    info(total_frames=37)(root)
    refused(root, LEROBOT, r"episode_000001\.parquet has 9 rows, but its episodes have 10 steps")


@pytest.mark.parametrize("version", ["v21", "v30"])
def test_a_feature_that_was_not_recorded_is_told_with_those_that_were(tmp_path, version):
    meta = {"obs": {"observation.force": {"shape": [6]}}, "action": {"shape": [6]}}
    message = "has no 'observation.force', only action, observation.images.front, .*shape_meta"
    refused(golden_copy(version, tmp_path), meta, message)


def test_a_feature_of_another_shape_is_told(tmp_path):
    meta = {"obs": {"observation.state": {"shape": [7]}}, "action": {"shape": [6]}}
    message = r"shape_meta\.obs\.observation\.state has shape \[7\] but the data set holds"
    refused(golden_copy("v21", tmp_path), meta, message)


def test_a_column_of_texts_is_no_vector(tmp_path):
    writer = LeRobotWriter(tmp_path / "texts", 10, "v2.1", encoding=None)
    writer.add_episode({"note": ["a", "b", "c"], "action": np.zeros((3, 6), np.float32)})
    writer.finish()
    meta = {"obs": {"note": {"shape": [1]}}, "action": {"shape": [6]}}
    refused(tmp_path / "texts", meta, r"shape_meta\.obs\.note has shape \[1\] but .* holds text")


def no_demos(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["data"]
        file.create_group("data")


def unequal_lengths(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["data/demo_1/obs/robot0_eef_pos"]
        file["data/demo_1/obs/robot0_eef_pos"] = np.zeros((4, 3))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3000])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_demos, "holds no demo; record some or choose another data set"),
        (unequal_lengths, "demo_1 has 1 actions; record one row per action"),
        (cut_short, r"cannot be read as HDF5 \(it is cut short\); fetch it again"),
    ],
)
def test_what_is_wrong_with_an_hdf5_file_is_told(tmp_path, spoil, message):
    path = write_robomimic(tmp_path / "demos.hdf5")
    spoil(path)
    refused(path, ROBOMIMIC, message)


def test_a_full_disk_ends_in_one_line_and_leaves_nothing(tmp_path):
    root = golden_copy("v21", tmp_path)
    with files_of_at_most(100_000):  # the images of a camera take 332 kB
        refused(root, LEROBOT, "cannot write .*cache.*; free space there or choose another place")
    assert not [path for path in tmp_path.rglob("*") if "npy" in path.name]
    read_all(root, LEROBOT)


def read_all(path: Path, meta: dict) -> None:
    dataset = WindowDataset(path, meta, Window((0,), (0,)), cache_dir=path.parent / "cache")
    for i in range(len(dataset)):
        _ = dataset[i]


def refused(path: Path, meta: dict, message: str) -> None:
    """Check that training on this data set ends in a line that says so."""
    with pytest.raises(UserError, match=message) as told:
        read_all(path, meta)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 500


def test_good_data_are_not_refused(tmp_path):
    for name in ("v21", "v30"):
        root = golden_copy(name, tmp_path)
        assert len(WindowDataset(root, LEROBOT, Window((0,), (0,)), cache_dir=tmp_path / "cache"))
    assert open_store(write_robomimic(tmp_path / "demos.hdf5")).n_steps
