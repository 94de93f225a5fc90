from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from diffusion_policy.dataset.stores.lerobot.metadata import read_metadata  # noqa: E402
from diffusion_policy.util.errors import UserError  # noqa: E402
from tests.dataset.stores.lerobot.golden import EXPECTED, GOLDEN, expected, golden_copy  # noqa: E402


@pytest.mark.parametrize("name", EXPECTED)
def test_golden_metadata_is_read_right(name):
    wanted = expected(name)
    found = read_metadata(GOLDEN / name)
    assert found.version == ("v2.1" if name == "v21" else "v3.0")
    assert (found.fps, found.robot_type, list(found.tasks)) == (
        10,
        "so101_follower",
        wanted["tasks"],
    )
    assert len(found.features["action"].part_names) == 6
    assert len(found.episodes) == len(wanted["episodes"])
    for record, episode in zip(found.episodes, wanted["episodes"], strict=True):
        assert record.length == episode["length"]
        assert set(record.tasks) == set(episode["tasks"])
        assert record.data_file.is_file()
        for camera, segment in record.videos.items():
            assert segment.path.is_file()
            if name != "v30_from_v21":  # whose expected values are those before the conversion
                assert segment.path == GOLDEN / name / episode["video_files"][camera]
                start = episode["dataset_from_index"] / 10 if name == "v30" else 0
                assert segment.from_timestamp == pytest.approx(start)


def test_episodes_of_a_file_lie_one_after_another():
    rows = [episode.first_row for episode in read_metadata(GOLDEN / "v30").episodes]
    assert rows == [0, 12, 21]
    np.testing.assert_array_equal(read_metadata(GOLDEN / "v21").episode_ends, [12, 21, 36])


def info(**changes: Any) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / "meta/info.json"
        content = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({k: v for k, v in content.items() if v != "absent"}))

    return change


def feature(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / "meta/info.json"
        content = json.loads(path.read_text())
        content["features"][name] = {**content["features"].get(name, {}), **changes}
        path.write_text(json.dumps(content))

    return change


def table(file: str, change_rows: Callable[[list[dict]], Any]) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / file
        stored = pq.read_table(path)
        rows = stored.to_pylist()
        change_rows(rows)
        pq.write_table(pa.Table.from_pylist(rows), path)

    return change


def replaced(file: str, content: bytes | None) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / file).unlink()
        if content is not None:
            (root / file).write_bytes(content)

    return change


EPISODES = "meta/episodes/chunk-000/file-000.parquet"
TIMES = "videos/observation.images.front/from_timestamp"
BROKEN_V30 = [
    (replaced("meta/info.json", None), "no meta/info.json"),
    (replaced("meta/info.json", b"{"), "damaged"),
    (replaced("meta/info.json", b"[]"), "damaged"),
    (info(codebase_version="absent"), "has no codebase_version"),
    (info(codebase_version="v4.0"), "v4.0, but read are v2.0, v2.1 and v3.0; fetch"),
    (info(codebase_version="v1.6"), "convert it"),
    (info(codebase_version="new"), "'new'"),
    (info(codebase_version=3), "'3'"),
    (info(fps=0), "fps is 0"),
    (info(fps="10"), "fps is '10'"),
    (info(total_frames=37), "total_frames 37, but .* 36"),
    (info(total_episodes=2), "total_episodes 2, but .* 3"),
    (info(features="absent"), "no features"),
    (info(data_path="../{chunk_index}/{file_index}"), "leads out"),
    (info(data_path="/data/{file_index}"), "leads out"),
    (info(data_path="data\\{file_index}"), "leads out"),
    (info(data_path="data/{episode_index}"), "fields may be chunk_index, file_index"),
    (info(data_path="data/{file_index.__class__}"), "fields may be"),
    (info(data_path="data/{file_index:0999999999d}"), "fields may be"),
    (info(data_path="data/{file_index!r}"), "fields may be"),
    (info(data_path="data/{"), "no template"),
    (info(video_path=None), "no video_path"),
    (feature("action", dtype="object"), "dtype 'object'"),
    (feature("action", dtype="O"), "dtype 'O'"),
    (feature("action", shape=[0]), r"shape \[0\]"),
    (feature("action", shape=[2**20, 2**20]), "no step of a dataset"),
    (feature("action", shape="6"), "shape is '6'"),
    (feature("observation.images.front", shape=[48, 64]), "a picture has"),
    (feature("../front", dtype="float32", shape=[1]), "lead to other folders"),
    (replaced(EPISODES, None), "has no meta/episodes"),
    (replaced(EPISODES, b"PAR1 cut short"), "no whole parquet file"),
    (table(EPISODES, lambda rows: rows.pop(1)), "episode_index 2 where 1 belongs"),
    (table(EPISODES, lambda rows: rows[2].update(episode_index=1)), "where 2 belongs"),
    (table(EPISODES, lambda rows: rows[0].update(length=11)), "episode 0 has 11 steps"),
    (table(EPISODES, lambda rows: rows[1].update(dataset_from_index=13)), "episode 1"),
    (table(EPISODES, lambda rows: [row.pop(TIMES) for row in rows]), "no column"),
    (table(EPISODES, lambda rows: rows[1].update({TIMES: float("nan")})), "starts at nan"),
    (table(EPISODES, lambda rows: rows[1].update({"data/file_index": None})), "whole numbers"),
    (table(EPISODES, lambda rows: rows[1].update({"data/file_index": -1})), "out of range"),
    (replaced("meta/tasks.parquet", None), "is missing"),
    (table("meta/tasks.parquet", lambda rows: rows.pop(0)), "task_index 1 where 0 belongs"),
]
BROKEN_V21 = [
    (info(chunks_size="absent"), "no chunks_size"),
    (info(chunks_size=0), "chunks_size is 0"),
    (info(video_path="videos/{episode_chunk}/../{video_key}"), "leads out"),
    (replaced("meta/episodes.jsonl", None), "cannot be read"),
    (replaced("meta/episodes.jsonl", b'{"episode_index": 0, "length": 12}\n{"epi'), "line 2"),
    (replaced("meta/episodes.jsonl", b'{"episode_index": 0, "length": 0}'), "has 0 steps"),
    (replaced("meta/episodes.jsonl", b'{"episode_index": 0, "length": 1e300}'), "length is"),
    (replaced("meta/tasks.jsonl", b'{"task_index": 0, "task": 7}'), "task is '7'"),
    (replaced("meta/tasks.jsonl", b'{"task_index": 1, "task": "a"}'), "where 0 belongs"),
]
BROKEN = [("v30", *case) for case in BROKEN_V30] + [("v21", *case) for case in BROKEN_V21]


@pytest.mark.parametrize(("name", "change", "message"), BROKEN)
def test_what_is_wrong_is_told_in_one_line(tmp_path, name, change, message):
    root = golden_copy(name, tmp_path)
    change(root)
    with pytest.raises(UserError, match=message) as told:
        read_metadata(root)
    assert "\n" not in str(told.value)
    assert str(root) in str(told.value)


def test_what_is_unknown_is_tolerated(tmp_path):
    root = golden_copy("v30", tmp_path)
    info(tools=[{"name": "a"}], total_videos=3)(root)
    feature("action", fps=10, unit="degree")(root)
    assert read_metadata(root).features["action"].shape == (6,)


def test_nothing_depends_on_the_number_of_tasks(tmp_path):
    root = golden_copy("v30", tmp_path)
    info(total_tasks=7)(root)
    with pytest.warns(UserWarning, match="total_tasks 7, but 2"):
        read_metadata(root)


def test_tasks_are_named_by_later_versions(tmp_path):
    root = golden_copy("v30", tmp_path)
    path = root / "meta/tasks.parquet"
    pq.write_table(pq.read_table(path).rename_columns(["task_index", "task"]), path)
    assert read_metadata(root).tasks == read_metadata(GOLDEN / "v30").tasks


@pytest.mark.parametrize(
    ("shape", "names", "image_shape"),
    [
        ([48, 64, 3], ["height", "width", "channels"], (3, 48, 64)),
        ([48, 64, 3], ["height", "width", "channel"], (3, 48, 64)),
        ([3, 48, 64], ["channels", "height", "width"], (3, 48, 64)),
        ([3, 48, 64], None, (3, 48, 64)),
        ([48, 64, 1], None, (1, 48, 64)),
    ],
)
def test_pictures_have_channels_first_or_last(tmp_path, shape, names, image_shape):
    root = golden_copy("v30", tmp_path)
    feature("observation.images.front", shape=shape, names=names)(root)
    found = read_metadata(root).features["observation.images.front"]
    assert found.image_shape == image_shape


def test_motors_may_be_named_in_a_dict(tmp_path):
    root = golden_copy("v30", tmp_path)
    feature("action", names={"motors": list("abcdef")})(root)
    assert read_metadata(root).features["action"].part_names == tuple("abcdef")


def test_a_small_file_that_grows_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("diffusion_policy.dataset.stores.lerobot.parquet._ALWAYS_ALLOWED", 2**10)
    root = golden_copy("v30", tmp_path)
    zeros = pa.table({"task_index": pa.array(np.zeros(2**20, np.int8))})
    pq.write_table(zeros, root / "meta/tasks.parquet")
    with pytest.raises(UserError, match="would grow"):
        read_metadata(root)
