"""Edited data sets hold the episodes and keys that were asked for, and verify."""

from __future__ import annotations

import json

import numpy as np
import pytest

from diffusion_policy.dataset.convert import Target, convert
from diffusion_policy.dataset.prepared_episode import Source
from diffusion_policy.dataset.stores.lerobot.metadata import read_metadata
from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.dataset.verify import verify_dataset
from diffusion_policy.scripts.edit_dataset import main
from tests.dataset.stores.lerobot.golden import GOLDEN, golden_copy
from tests.dataset.test_convert import recorded_zarr

FRONT, WRIST = "observation.images.front", "observation.images.wrist"
GOLDEN_LENGTHS = (12, 9, 15)


@pytest.fixture
def no_encoder(monkeypatch):
    """Fail where pictures would be encoded again."""

    def fail(*_):
        raise AssertionError("encoded anew")

    monkeypatch.setattr("diffusion_policy.dataset.stores.lerobot.video_files.encode_frames", fail)


def edit(tmp_path, *options, source=GOLDEN / "v30"):
    arguments = [str(source), "--output", str(tmp_path / "out"), *options]
    main([*arguments, "--cache-dir", str(tmp_path / "cache")])
    verify_dataset(tmp_path / "out")
    return open_store(tmp_path / "out", tmp_path / "cache", cache="none")


def golden_steps(*ranges: tuple[int, int, int]) -> np.ndarray:
    """Steps of the golden data set, from (episode, first, stop)."""
    starts = np.cumsum([0, *GOLDEN_LENGTHS])
    return np.concatenate([starts[i] + np.arange(first, stop) for i, first, stop in ranges])


@pytest.mark.parametrize("name", ["v21", "v30"])
@pytest.mark.parametrize(
    ("options", "episodes"),
    [
        (["--delete", "1"], [[(0, 0, 12)], [(2, 0, 15)]]),
        (["--keep", "2,0-1"], [[(2, 0, 15)], [(0, 0, 12)], [(1, 0, 9)]]),
        (
            ["--split", "0:4,10"],
            [[(0, 0, 4)], [(0, 4, 10)], [(0, 10, 12)], [(1, 0, 9)], [(2, 0, 15)]],
        ),
        (["--merge", "1-2"], [[(0, 0, 12)], [(1, 0, 9), (2, 0, 15)]]),
        (["--merge", "2,0", "--delete", "1"], [[(2, 0, 15), (0, 0, 12)]]),
    ],
)
def test_episodes_are_chosen_cut_and_joined_without_encoding(
    tmp_path, no_encoder, name, options, episodes
):
    store = edit(tmp_path, *options, source=GOLDEN / name)
    golden = open_store(GOLDEN / name, tmp_path / "cache", cache="none")
    lengths = [sum(stop - first for _, first, stop in pieces) for pieces in episodes]
    assert np.diff(store.episode_ends, prepend=0).tolist() == lengths
    steps = golden_steps(*(piece for pieces in episodes for piece in pieces))
    new = np.arange(len(steps))
    for key in ("observation.state", "action", FRONT, WRIST):
        np.testing.assert_array_equal(store.read(key, new), golden.read(key, steps))
    assert store.read("task", new) == golden.read("task", steps)
    assert read_metadata(tmp_path / "out").version == {"v21": "v2.1", "v30": "v3.0"}[name]


@pytest.mark.slow
def test_an_episode_that_begins_between_key_frames_is_encoded_anew(tmp_path):
    store = edit(tmp_path, "--keep", "0", "--split", "0:3")
    golden = open_store(GOLDEN / "v30", tmp_path / "cache", cache="none")
    found, wanted = (each.read(FRONT, np.arange(12)).astype(int) for each in (store, golden))
    assert np.abs(found - wanted).mean() < 3
    assert read_metadata(tmp_path / "out").features[FRONT].info["video.codec"] == "av1"


@pytest.mark.slow
def test_keys_are_renamed_dropped_and_swapped(tmp_path, no_encoder):
    store = edit(
        tmp_path,
        *("--rename", "observation.state=observation.joints", "--swap", f"{FRONT}={WRIST}"),
        *("--set-task", "sort the blocks"),
    )
    golden = open_store(GOLDEN / "v30", tmp_path / "cache", cache="none")
    steps = np.arange(36)
    for new, old in ((FRONT, WRIST), (WRIST, FRONT), ("observation.joints", "observation.state")):
        np.testing.assert_array_equal(store.read(new, steps), golden.read(old, steps))
    assert "observation.state" not in store.features
    assert set(store.read("task", steps)) == {"sort the blocks"}
    before, after = read_metadata(GOLDEN / "v30"), read_metadata(tmp_path / "out")
    names = before.features["observation.state"].names
    assert after.features["observation.joints"].names == names
    stats = json.loads((tmp_path / "out/meta/stats.json").read_text())
    wanted = json.loads((GOLDEN / "v30/meta/stats.json").read_text())
    np.testing.assert_allclose(stats[FRONT]["max"], wanted[WRIST]["max"], atol=0.05)


def test_a_dropped_key_is_gone(tmp_path, no_encoder):
    store = edit(tmp_path, "--drop", WRIST, "--drop", "action")
    assert sorted(store.features) == [FRONT, "observation.state", "task"]
    assert not list((tmp_path / "out").glob(f"videos/*{WRIST}*"))


@pytest.mark.slow
def test_data_sets_are_merged(tmp_path, no_encoder):
    store = edit(tmp_path, str(GOLDEN / "v21"), "--delete", "1-4")
    assert np.diff(store.episode_ends, prepend=0).tolist() == [12, 15]
    golden = open_store(GOLDEN / "v30", tmp_path / "cache", cache="none")
    np.testing.assert_array_equal(
        store.read("action", np.arange(27)),
        golden.read("action", golden_steps((0, 0, 12), (2, 0, 15))),
    )


def test_in_place_the_data_set_is_replaced_at_the_end(tmp_path):
    path = golden_copy("v30", tmp_path)
    main([str(path), "--in-place", "--delete", "0"])
    verify_dataset(path)
    assert read_metadata(path).episode_ends.tolist() == [9, 24]
    assert [p.name for p in tmp_path.iterdir()] == ["v30"]


@pytest.mark.slow
def test_every_format_stays_what_it_is(tmp_path):
    source = recorded_zarr(tmp_path / "a.zarr")
    main([str(source), "--output", str(tmp_path / "b.zarr"), "--keep", "2"])
    assert open_store(tmp_path / "b.zarr").episode(0).initial_state.shape == (5,)
    settings = Target("groot", fps=10)
    convert(Source((str(source),), cache_dir=str(tmp_path / "cache")), tmp_path / "g", settings)
    main([str(tmp_path / "g"), "--output", str(tmp_path / "h"), "--rename", "image=camera"])
    modality = json.loads((tmp_path / "h/meta/modality.json").read_text())
    assert modality["video"] == {"camera": {"original_key": "camera"}}
    assert read_metadata(tmp_path / "h").features["camera"].info["video.codec"] == "h264"
    with pytest.warns(UserWarning, match="only 3 of 4 episodes have an initial state"):
        main([str(tmp_path / "g"), f"--output={tmp_path / 'i'}", "--codec=av1", "--split=0:2"])
    assert read_metadata(tmp_path / "i").features["image"].info["video.codec"] == "av1"
    # A part that begins later has no initial state, so none of them has one.
    assert open_store(tmp_path / "i").episode(0).initial_state is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--delete", "7"], "only episodes 0 to 2"),
        (["--delete", "x"], "write numbers of episodes"),
        (["--delete", "0-2"], "no episode is left"),
        (["--split", "0:12"], "has 12 steps and cannot be split at 12"),
        (["--split", "0:5,5"], "cannot be split at 5, 5"),
        (["--split", "0"], "write EPISODE:STEP"),
        (["--split", "9:1"], "there is no episode 9"),
        (["--merge", "0-1", "--delete", "1"], "episode 1 is named twice"),
        (["--rename", "action"], "write two keys as A=B"),
        (["--rename", "nothing=else"], "has no 'nothing'"),
        (["--rename", "action=observation.state"], "would be called 'observation.state'"),
        (["--drop", "nothing"], "has no 'nothing'"),
        (["--rename", "action=timestamp"], "a column that LeRobot fills"),
        (["--rename", "action=a/b"], "cannot name a feature"),
    ],
)
def test_what_cannot_be_edited_is_told_in_one_line(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        main([str(GOLDEN / "v30"), "--output", str(tmp_path / "out"), *options])
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "0:4", "--split", "0:10"], "--split names 0 twice"),
        (["--rename", "action=a", "--rename", "action=b"], "--rename names action twice"),
        (["--keep", "1,2", "--merge", "0-1"], "episode 0 is merged but not kept"),
        (["--keep", "0", "--merge", "0-1"], "episode 1 is merged but not kept"),
    ],
)
def test_options_that_contradict_each_other_are_refused(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        edit(tmp_path, *options)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_numbers_of_other_names_are_not_merged(tmp_path, capsys):
    other = golden_copy("v30", tmp_path)
    info = json.loads((other / "meta/info.json").read_text())
    info["features"]["action"]["names"].reverse()
    (other / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(SystemExit):
        edit(tmp_path, str(other))
    assert "the numbers of action have other names" in capsys.readouterr().err


def test_what_cannot_be_read_is_told_and_never_lost_in_place(tmp_path, capsys):
    source = golden_copy("v30", tmp_path)
    info = json.loads((source / "meta/info.json").read_text())
    info["features"][WRIST]["info"]["video.is_depth_map"] = True
    (source / "meta/info.json").write_text(json.dumps(info))
    videos = sorted(source.rglob("*.mp4"))
    with pytest.raises(SystemExit):
        main([str(source), "--in-place", "--set-task", "x", "--cache-dir", str(tmp_path / "c")])
    assert "is depth video, which is not read, and would be lost" in capsys.readouterr().err
    assert sorted(source.rglob("*.mp4")) == videos
    with pytest.warns(UserWarning, match=f"{WRIST} is not written"):
        assert WRIST not in edit(tmp_path, "--set-task", "x", source=source).features
