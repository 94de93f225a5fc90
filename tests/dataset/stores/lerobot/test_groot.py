"""GR00T's flavour: modality.json names the parts of vectors, and stats.json holds all columns."""

from __future__ import annotations

import json

import numpy as np
import pytest

from diffusion_policy.dataset.convert import Target, convert
from diffusion_policy.dataset.prepared_episode import Source
from diffusion_policy.dataset.stores.lerobot.groot import (
    GrootWriter,
    check_modality,
    derived_modality,
)
from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.util.errors import UserError
from tests.dataset.stores.lerobot.golden import GOLDEN


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("groot")
    convert(Source((str(GOLDEN / "v30"),)), folder / "set", Target("groot"))
    return folder / "set"


def test_the_arm_and_its_gripper_are_told_apart(converted):
    modality = json.loads((converted / "meta/modality.json").read_text())
    state = {
        "single_arm": {"start": 0, "end": 5, "original_key": "observation.state"},
        "gripper": {"start": 5, "end": 6, "original_key": "observation.state"},
    }
    assert modality["state"] == state
    assert modality["action"] == {k: {**v, "original_key": "action"} for k, v in state.items()}
    assert modality["video"] == {
        name: {"original_key": f"observation.images.{name}"} for name in ("front", "wrist")
    }
    key = {"original_key": "task_index"}
    assert modality["annotation"] == {"human.task_description": key}


def test_videos_are_named_as_groot_needs(converted):
    info = json.loads((converted / "meta/info.json").read_text())
    feature = info["features"]["observation.images.front"]
    assert feature["names"] == ["height", "width", "channels"]
    assert (feature["info"]["video.codec"], feature["info"]["video.fps"]) == ("h264", 10)
    template = info["video_path"]
    values = {"episode_chunk": 0, "episode_index": 2, "video_key": "observation.images.front"}
    assert (converted / template.format(**values)).is_file()


def test_statistics_are_of_all_steps(converted):
    found = json.loads((converted / "meta/stats.json").read_text())
    store = open_store(converted)
    assert set(found) == {
        *("observation.state", "action", "timestamp"),
        *("frame_index", "episode_index", "index", "task_index"),
    }
    values = np.asarray(store.read("action", np.arange(36)))
    for name, wanted in {
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "q01": np.quantile(values, 0.01, axis=0),
        "q99": np.quantile(values, 0.99, axis=0),
    }.items():
        np.testing.assert_allclose(found["action"][name], wanted, rtol=1e-5)
    assert found["timestamp"]["max"] == pytest.approx([1.4])


def vector(n, names=None):
    return {"dtype": "float32", "shape": [n], "names": names}


def test_parts_follow_the_names():
    two_arms = [f"{s}_{j}" for s in ("left", "right") for j in ("shoulder", "elbow", "gripper")]
    found = derived_modality(
        {
            "observation.state": vector(6, {"motors": two_arms}),
            "state": vector(5),
            "action": vector(2),
            "action.base": vector(3),
            "next.reward": vector(1),
            "observation.force": vector(1),
            "timestamp": vector(1),
        }
    )
    assert {k: (v["start"], v["end"]) for k, v in found["state"].items()} == {
        "left_arm": (0, 2),
        "left_gripper": (2, 3),
        "right_arm": (3, 5),
        "right_gripper": (5, 6),
        "state": (0, 5),
    }
    assert list(found["action"]) == ["action", "base"]


def test_a_given_modality_is_written_as_it_is(tmp_path):
    given = {"state": {}, "action": {"hand": {"start": 1, "end": 2}}, "video": {}, "annotation": {}}
    with GrootWriter(tmp_path / "set", 10, modality=given) as writer:
        writer.add_episode({"action": np.zeros((3, 2))})
    assert json.loads((tmp_path / "set/meta/modality.json").read_text()) == given


@pytest.mark.parametrize(
    ("modality", "message"),
    [
        ({"action": {"x": {"start": 0, "end": 3}}}, "0 to 3 of 'action', which has 2"),
        ({"action": {"x": {"start": 1, "end": 1}}}, "1 to 1 of 'action'"),
        ({"action": {"x": {"end": 1}}}, "None to 1 of 'action'"),
        ({"state": {"x": {"start": 0, "end": 1}}}, "of 'observation.state', which is not recorded"),
        ({"video": {"top": {}}}, "of 'observation.images.top', which is not recorded"),
    ],
)
def test_a_modality_that_does_not_fit_is_refused(modality, message):
    with pytest.raises(UserError, match=message):
        check_modality(modality, {"action": vector(2)})
