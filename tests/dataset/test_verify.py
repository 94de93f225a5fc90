"""A check of a data set finds what is wrong, and finds nothing wrong with published ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from diffusion_policy.dataset.store_origin import picture_statistics
from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.verify import verify_dataset
from diffusion_policy.dataset.video.encoder import VideoEncoding, encode_frames
from diffusion_policy.dataset.video.packet_copy import Part, copy_parts
from diffusion_policy.dataset.video.segment import VideoSegment
from diffusion_policy.util.errors import UserError
from tests.dataset.stores.lerobot.golden import EXPECTED, GOLDEN, golden_copy
from tests.dataset.test_convert import recorded_zarr

VIDEO = "videos/chunk-000/observation.images.front/episode_000000.mp4"


@pytest.mark.parametrize("name", EXPECTED)
def test_published_data_sets_are_right(name):
    verify_dataset(GOLDEN / name)


def change_json(path: Path, *keys: str, value: object) -> None:
    content = json.loads(path.read_text())
    part = content
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    path.write_text(json.dumps(content))


def cut_video(root: Path) -> None:
    video = root / VIDEO
    copy_parts(root / "short.mp4", [Part(VideoSegment(video), 10)], 10)
    (root / "short.mp4").replace(video)


def encode(root: Path, n: int, fps: float, size: tuple[int, int]) -> None:
    frames = np.full((n, 3, *size), 9, np.uint8)
    encode_frames(root / VIDEO, [frames], fps, VideoEncoding("h264"))


def garble_video(root: Path) -> None:
    content = bytearray((root / VIDEO).read_bytes())
    start = content.index(b"mdat")
    content[start + 4 : start + 400] = bytes(396)
    (root / VIDEO).write_bytes(content)


def change_line(root: Path) -> None:
    path = root / "meta/episodes_stats.jsonl"
    lines = path.read_text().splitlines()
    row = json.loads(lines[1])
    row["stats"]["action"]["mean"][2] += 0.01
    path.write_text("\n".join([lines[0], json.dumps(row), *lines[2:]]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_line, "mean of 'action' in episode 1 is .* in meta/, but"),
        (cut_video, "has 10 frames, but its episodes have 12 steps"),
        (lambda root: encode(root, 12, 10.5, (48, 64)), "shows frame 1 at .* not at 0.1 s"),
        (lambda root: encode(root, 12, 10, (48, 80)), "48 x 80 pixels, but its feature is 48 x 64"),
        (lambda root: (root / VIDEO).write_bytes(b"nothing"), "cannot be decoded"),
        (garble_video, "cannot be decoded|has no frame at 0 s"),
        (lambda root: (root / VIDEO).unlink(), "cannot be decoded|is missing"),
    ],
)
def test_what_is_wrong_with_files_of_episodes_is_found(tmp_path, damage, message):
    root = golden_copy("v21", tmp_path)
    damage(root)
    with pytest.raises(UserError, match=message):
        verify_dataset(root)


def test_wrong_statistics_of_the_whole_are_found(tmp_path):
    root = golden_copy("v30", tmp_path)
    change_json(root / "meta/stats.json", "action", "std", value=[0.0] * 6)
    with pytest.raises(UserError, match="std of 'action' in the data set is 0 in meta/"):
        verify_dataset(root)


def test_a_damaged_picture_is_found(tmp_path):
    root = golden_copy("v30_image", tmp_path)
    (path,) = root.glob("data/*/*.parquet")
    table = pq.read_table(path)
    name = "observation.images.wrist"
    cells = table[name].to_pylist()
    cells[5] = {"bytes": cells[5]["bytes"][:20], "path": None}
    column = table.schema.get_field_index(name)
    pq.write_table(table.set_column(column, table.schema.field(name), [cells]), path)
    with pytest.raises(UserError, match=r"images\.wrist' in step 5 of episode 0"):
        verify_dataset(root)


def test_a_damaged_chunk_is_found(tmp_path):
    path = recorded_zarr(tmp_path / "a.zarr")
    verify_dataset(path)
    chunk = next(p for p in (path / "data/action/c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-3])
    with pytest.raises(UserError, match="data/action cannot be decoded"):
        verify_dataset(path)
    assert ReplayBuffer.create_from_path(path).n_episodes == 3


def test_picture_statistics_go_by_the_number_of_their_episode(tmp_path):
    source = golden_copy("v21", tmp_path)
    path = source / "meta/episodes_stats.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    key = "observation.images.front"
    stored = json.loads(lines[2])["stats"][key]["mean"]
    path.write_text("".join(lines[1:]))  # the first is missing
    store = open_store(source, tmp_path / "cache")
    assert picture_statistics(store, key, 0) == {}
    np.testing.assert_array_equal(picture_statistics(store, key, 2)["mean"], stored)
