from __future__ import annotations

import base64
import re

import av
import h5py
import numpy as np
import pytest

from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.inspection.checks import findings
from diffusion_policy.inspection.figures import episode_video, frames_side_by_side
from diffusion_policy.inspection.page import chosen_episodes, write_page
from diffusion_policy.inspection.recording import Finding, Recording, open_recording
from diffusion_policy.inspection.summary import facts, ranges, summary
from diffusion_policy.scripts import inspect_dataset
from tests.dataset.stores.hdf5_files import write_robomimic
from tests.dataset.stores.lerobot.golden import golden_copy
from tests.inspection.recordings import LENGTHS, good_arrays, store_of

HOSTILE = "<script>alert(1)</script>$\\frac{$\x1b[2J"


@pytest.fixture(scope="module")
def recording() -> Recording:
    arrays = good_arrays()
    arrays[HOSTILE] = arrays["state"].copy()
    arrays[HOSTILE][3] = np.nan
    return Recording(store_of(arrays, tasks=[HOSTILE] * len(LENGTHS)))


def test_the_summary_tells_all_and_moves_no_cursor(recording):
    text = summary(recording, findings(recording))
    assert "\x1b" not in text
    for told in ("5\n", "237, 23.7 s", "40 to 60, median 45", "not finite: ", "3 x 24 x 32"):
        assert told in text


def test_facts_that_nobody_knows_are_left_out(recording):
    assert dict(facts(recording)).keys() == {
        *("format", "rate", "episodes", "steps", "steps of an episode", "tasks")
    }


def test_ranges_leave_nan_out():
    assert ranges(np.array([[1, np.nan], [2.5, np.nan]])) == "1 to 2.5; not finite"


@pytest.mark.slow
def test_the_page_needs_no_other_file_and_names_are_only_text(recording, tmp_path):
    found = findings(recording)
    page = write_page(tmp_path / "page.html", recording, found, "data/<i>x</i>", 2).read_text()
    assert "<script" not in page
    assert "<i>" not in page
    assert "&lt;script&gt;alert(1)" in page
    links = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert all(link.startswith("data:") for link in links)
    assert sum(link.startswith("data:video/mp4") for link in links) == 2
    (plots,) = {len(re.findall(r"Vectors of episode", page))}
    assert plots == 2


def test_a_video_shows_all_cameras_in_a_row(recording, tmp_path):
    (tmp_path / "video.mp4").write_bytes(episode_video(recording, 1))
    with av.open(str(tmp_path / "video.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == LENGTHS[1]
    assert frames[0].shape == (120, 320, 3)
    left, right = frames[0][100, 10], frames[0][100, 170]
    np.testing.assert_allclose(left, (200, 60, 40), atol=8)
    np.testing.assert_allclose(right, (30, 90, 160), atol=8)


def test_suspicious_episodes_are_shown_first(recording):
    found = [Finding("a", "x", (3, 4)), Finding("b", "y"), Finding("c", "z", (1,))]
    assert chosen_episodes(recording, found, 2) == [1, 3]
    assert chosen_episodes(recording, found, 3) == [0, 1, 3]
    assert chosen_episodes(recording, [], 99) == [0, 1, 2, 3, 4]


def test_a_key_that_cannot_be_read_is_a_finding(tmp_path):
    path = write_robomimic(tmp_path / "demos.hdf5")
    with h5py.File(path, "r+") as file:
        del file["data/demo_1/obs/robot0_eef_pos"], file["data/demo_2/obs/agentview_image"]
    found = findings(Recording(open_store(path)))
    messages = [one.message for one in found if one.check == "cannot be read"]
    assert len(messages) == 2
    assert any("demo_1 has no obs/robot0_eef_pos" in message for message in messages)
    assert any("demo_2 has no obs/agentview_image" in message for message in messages)


def test_a_video_with_fewer_frames_than_steps_is_a_finding(tmp_path):
    root = golden_copy("v21", tmp_path)
    long, short = sorted(root.glob("videos/*/*front/*.mp4"))[:2]
    long.write_bytes(short.read_bytes())
    recording = open_recording(str(root))
    (finding,) = findings(recording)
    assert finding.check == "cannot be read"
    assert "episode_000000.mp4" in finding.message
    frames = np.array([0, 11, 12])
    left, right = np.split(frames_side_by_side(recording, frames), 2, axis=2)
    assert (left == 128).all()  # the page shows the rest
    assert right.std() > 10


@pytest.mark.slow
def test_the_command_prints_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = write_robomimic(tmp_path / "Lift.hdf5")
    inspect_dataset.main([str(path), "--episodes", "1"])
    out = capsys.readouterr().out
    assert "agentview_image" in out
    assert out.endswith("wrote data/inspections/lift.html\n")
    image = re.search(
        r"data:image/jpeg;base64,([^\"]+)", (tmp_path / "data/inspections/lift.html").read_text()
    )
    assert base64.b64decode(image[1]).startswith(b"\xff\xd8")
    for wrong in ([str(tmp_path / "absent")], [str(path), "--episodes", "0"]):
        with pytest.raises(SystemExit):
            inspect_dataset.main(wrong)
        assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.slow
def test_the_command_looks_at_what_it_repaired(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = golden_copy("v21", tmp_path)
    path = source / "meta/episodes.jsonl"
    path.write_text(path.read_text().replace('"length": 9', '"length": 10'))
    with pytest.raises(SystemExit):
        inspect_dataset.main([str(source)])
    assert "--repair" in capsys.readouterr().err
    inspect_dataset.main([str(source), "--repair", "--episodes", "1"])
    out = capsys.readouterr().out
    assert "repaired:\n- episode 1: length 10 -> 9\nwrote " in out
    assert out.endswith("wrote data/inspections/v21_repaired.html\n")
    inspect_dataset.main([str(tmp_path / "v21_repaired"), "--repair", "--episodes", "1"])
    assert capsys.readouterr().out.startswith("there is nothing to repair")
