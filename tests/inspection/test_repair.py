"""Datasets that a recording left behind when it died, or that somebody edited by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.inspection.repair import repair
from diffusion_policy.util.errors import UserError
from tests.dataset.stores.lerobot.golden import golden_copy

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def info_of(root: Path) -> dict:
    return json.loads((root / "meta/info.json").read_text())


def change_info(root: Path, **values: object) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(info_of(root) | values))


def change_column(path: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    table = pq.read_table(path)
    place = table.schema.get_field_index(name)
    values = change(table.column(name).to_numpy().copy())
    column = pa.array(values).cast(table.schema.field(place).type)
    pq.write_table(table.set_column(place, table.schema.field(place), column), path)


def cut(path: Path, share: float = 0.7) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def lengths(root: Path) -> list[int]:
    if info_of(root)["codebase_version"] == "v3.0":
        tables = [pq.read_table(path) for path in sorted(root.glob("meta/episodes/*/*.parquet"))]
        return [n for table in tables for n in table.column("length").to_pylist()]
    lines = (root / "meta/episodes.jsonl").read_text().splitlines()
    return [json.loads(line)["length"] for line in lines]


@pytest.mark.parametrize("name", ["v21", "v30", "v30_from_v21", "v30_image"])
def test_what_the_published_package_wrote_needs_no_repair(tmp_path, name):
    source = golden_copy(name, tmp_path)
    assert repair(source, tmp_path / "repaired") == []
    assert not (tmp_path / "repaired").exists()


@pytest.mark.parametrize("name", ["v21", "v30"])
def test_counts_follow_from_the_episodes(tmp_path, name):
    source = golden_copy(name, tmp_path)
    expected = info_of(source)
    change_info(source, total_episodes=7, total_frames=1, total_tasks=0)
    changed = repair(source, tmp_path / "repaired")
    assert changed == [
        "meta/info.json: total_episodes 7 -> 3, total_frames 1 -> 36, total_tasks 0 -> 2"
    ]
    assert info_of(tmp_path / "repaired") == expected
    assert info_of(source)["total_episodes"] == 7


@pytest.mark.parametrize("name", ["v21", "v30"])
def test_times_are_put_on_the_grid_and_steps_counted(tmp_path, name):
    source = golden_copy(name, tmp_path)
    path = sorted(source.glob("data/*/*.parquet"))[0]
    before = pq.read_table(path)
    change_column(path, "timestamp", lambda times: times + 0.03)
    change_column(path, "index", lambda numbers: numbers + 5)
    change_column(path, "frame_index", lambda numbers: numbers * 2)
    assert repair(source, tmp_path / "repaired")
    after = pq.read_table(tmp_path / "repaired" / path.relative_to(source))
    for column in before.column_names:
        assert after.column(column).to_pylist() == before.column(column).to_pylist(), column
    assert after.schema.equals(before.schema, check_metadata=True)


@pytest.mark.parametrize("name", ["v21", "v30"])
def test_statistics_are_computed_anew(tmp_path, name):
    source = golden_copy(name, tmp_path)
    place = "meta/episodes_stats.jsonl" if name == "v21" else "meta/stats.json"
    text = (source / place).read_text()
    rows = [json.loads(line) for line in text.splitlines()] if name == "v21" else json.loads(text)
    entry = rows[1]["stats"]["action"] if name == "v21" else rows["action"]
    kept = entry["mean"]
    entry["mean"] = [99.0] * 6
    spoilt = "\n".join(map(json.dumps, rows)) if name == "v21" else json.dumps(rows)
    (source / place).write_text(spoilt)
    (told,) = repair(source, tmp_path / "repaired")
    assert "statistics of action" in told
    text = (tmp_path / "repaired" / place).read_text()
    rows = [json.loads(line) for line in text.splitlines()] if name == "v21" else json.loads(text)
    entry = rows[1]["stats"]["action"] if name == "v21" else rows["action"]
    np.testing.assert_allclose(entry["mean"], kept, rtol=1e-4)


def test_lost_statistics_of_a_data_set_come_from_its_episodes(tmp_path):
    source = golden_copy("v30", tmp_path)
    expected = json.loads((source / "meta/stats.json").read_text())
    (source / "meta/stats.json").write_text("{")
    repair(source, tmp_path / "repaired")
    found = json.loads((tmp_path / "repaired/meta/stats.json").read_text())
    assert found.keys() == expected.keys()
    for key in ("action", "observation.state", "timestamp"):
        for name in ("min", "max", "mean", "std", "count"):
            np.testing.assert_allclose(found[key][name], expected[key][name], rtol=1e-4, atol=1e-5)


def test_the_last_episode_of_v2_without_a_footer_is_dropped(tmp_path):
    source = golden_copy("v21", tmp_path)
    cut(source / "data/chunk-000/episode_000002.parquet")
    first, *_ = repair(source, tmp_path / "repaired")
    assert first.startswith("episode 2: dropped, since data/chunk-000/episode_000002.parquet is no")
    repaired = tmp_path / "repaired"
    assert lengths(repaired) == [12, 9]
    info = info_of(repaired)
    assert (info["total_episodes"], info["total_frames"], info["total_videos"]) == (2, 21, 4)
    assert info["splits"] == {"train": "0:2"}
    assert not list(repaired.rglob("episode_000002.*"))
    assert list(source.rglob("episode_000002.*"))


def test_a_last_video_that_was_never_finished_drops_its_episode(tmp_path):
    source = golden_copy("v21", tmp_path)
    (video,) = source.glob("videos/*/*wrist/episode_000002.mp4")
    cut(video, 0.3)
    repair(source, tmp_path / "repaired")
    assert lengths(tmp_path / "repaired") == [12, 9]


def test_a_last_line_that_was_never_finished_is_written_from_the_rows(tmp_path):
    source = golden_copy("v21", tmp_path)
    expected = (source / "meta/episodes.jsonl").read_text().splitlines()
    cut(source / "meta/episodes.jsonl", 0.9)
    changed = repair(source, tmp_path / "repaired")
    assert changed[0] == "meta/episodes.jsonl: its last line was never finished, and is dropped"
    found = (tmp_path / "repaired/meta/episodes.jsonl").read_text().splitlines()
    assert json.loads(found[2])["length"] == json.loads(expected[2])["length"]
    assert set(json.loads(found[2])["tasks"]) == set(json.loads(expected[2])["tasks"])


def test_lengths_follow_from_the_rows(tmp_path):
    source = golden_copy("v21", tmp_path)
    path = source / "meta/episodes.jsonl"
    path.write_text(path.read_text().replace('"length": 9', '"length": 10'))
    assert repair(source, tmp_path / "repaired") == ["episode 1: length 10 -> 9"]
    assert lengths(tmp_path / "repaired") == [12, 9, 15]


def split_of_v30(tmp_path: Path) -> Path:
    """A copy whose last episode lies in a data file of its own."""
    source = golden_copy("v30", tmp_path)
    path = source / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 21), path)
    pq.write_table(table.slice(21), path.with_name("file-001.parquet"))
    (meta,) = source.glob("meta/episodes/*/*.parquet")
    change_column(meta, "data/file_index", lambda files: np.array([0, 0, 1]))
    return source


def test_a_data_file_of_v3_without_a_footer_is_dropped(tmp_path):
    source = split_of_v30(tmp_path)
    cut(source / "data/chunk-000/file-001.parquet")
    changed = repair(source, tmp_path / "repaired")
    assert changed[0] == "data/chunk-000/file-001.parquet: was never finished, and is dropped"
    assert "episode 2: dropped, since it is listed, but was never recorded" in changed
    repaired = tmp_path / "repaired"
    assert lengths(repaired) == [12, 9]
    assert (info_of(repaired)["total_episodes"], info_of(repaired)["total_frames"]) == (2, 21)
    assert json.loads((repaired / "meta/stats.json").read_text())["action"]["count"] == [21]


def test_rows_of_v3_that_no_table_lists_are_dropped(tmp_path):
    source = golden_copy("v30", tmp_path)
    (meta,) = source.glob("meta/episodes/*/*.parquet")
    pq.write_table(pq.read_table(meta).slice(0, 2), meta)
    changed = repair(source, tmp_path / "repaired")
    assert "episode 2: dropped, since it was recorded, but is not listed" in changed
    assert pq.read_table(tmp_path / "repaired/data/chunk-000/file-000.parquet").num_rows == 21


def test_bounds_and_places_of_v3_follow_from_the_rows(tmp_path):
    source = split_of_v30(tmp_path)
    (meta,) = source.glob("meta/episodes/*/*.parquet")
    change_column(meta, "dataset_to_index", lambda ends: ends + 1)
    change_column(meta, "data/file_index", lambda files: files * 0)
    changed = repair(source, tmp_path / "repaired")
    assert "episode 2: data/file_index 0 -> 1" in changed
    assert "episode 0: dataset_to_index 13 -> 12" in changed


@pytest.mark.parametrize("name", ["v21", "v30"])
def test_damage_in_the_middle_is_not_guessed_at(tmp_path, name):
    source = golden_copy("v21", tmp_path) if name == "v21" else split_of_v30(tmp_path)
    cut(sorted(source.glob("data/*/*.parquet"))[0])
    with pytest.raises(UserError, match=r"cannot be repaired without guessing: .*parquet") as error:
        repair(source, tmp_path / "repaired")
    assert str(source) in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == [source.name]


def test_only_lerobot_data_are_repaired_and_nothing_is_overwritten(tmp_path):
    source = golden_copy("v21", tmp_path)
    with pytest.raises(UserError, match="is no LeRobot dataset"):
        repair(tmp_path, tmp_path / "repaired")
    (tmp_path / "repaired").mkdir()
    with pytest.raises(UserError, match="exists; remove it"):
        repair(source, tmp_path / "repaired")


def test_links_to_folders_are_not_followed(tmp_path):
    source = golden_copy("v21", tmp_path)
    (source / "loop").symlink_to(source)
    change_info(source, total_frames=1)
    repair(source, tmp_path / "repaired")
    assert not (tmp_path / "repaired/loop").exists()
    shutil.rmtree(tmp_path / "repaired")


@pytest.mark.parametrize("name", ["v21", "v30"])
def test_missing_steps_are_not_closed_up(tmp_path, name):
    source = golden_copy(name, tmp_path)
    path = min(source.glob("data/*/*.parquet"))
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table.slice(0, 2), table.slice(4)]), path)
    with pytest.raises(UserError, match=r"without guessing: episode 0 lacks steps before row 2"):
        repair(source, tmp_path / "repaired")
    assert not (tmp_path / "repaired").exists()


def test_templates_that_give_episodes_one_file_are_refused(tmp_path):
    source = golden_copy("v21", tmp_path)
    change_info(source, data_path="data/chunk-{episode_chunk:03d}/all.parquet")
    with pytest.raises(UserError, match="gives all episodes one file"):
        repair(source, tmp_path / "repaired")


def test_the_size_of_chunks_is_needed(tmp_path):
    source = golden_copy("v21", tmp_path)
    told = info_of(source)
    del told["chunks_size"]
    (source / "meta/info.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match="there is no chunks_size"):
        repair(source, tmp_path / "repaired")
