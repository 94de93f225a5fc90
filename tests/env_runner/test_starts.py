import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from diffusion_policy.dataset.stores.pusht_store import PushTStore
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.env.pusht.pusht_env import PushTEnv
from diffusion_policy.env_runner.starts import Group, group_from, starts_text
from diffusion_policy.spec.start import Start
from diffusion_policy.util.errors import UserError

ROOT = Path(__file__).parents[2]
CORNERS = [
    {"name": "left", "options": {"state": [1, 2]}},
    {"name": 3, "seed": 9},
]


def test_seeds():
    group = Group.parse("fresh", {"start_seed": 5, "n": 3, "n_vis": 1})
    assert group == Group.of_seeds("fresh", 5, 3, 1)
    assert group.starts == tuple(Start("fresh", str(seed), seed) for seed in (5, 6, 7))


def test_a_list():
    group = Group.parse("corners", {"starts": CORNERS, "start_seed": 4})
    assert group.starts == (
        Start("corners", "left", 4, {"state": [1, 2]}),
        Start("corners", "3", 9),
    )
    assert Group.parse("corners", {"starts": CORNERS, "n": 1}).starts == (
        Start("corners", "left", 0, {"state": [1, 2]}),
    )


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_list_in_a_file(tmp_path, suffix):
    path = tmp_path / f"corners{suffix}"
    path.write_text(json.dumps(CORNERS) if suffix == ".json" else yaml.safe_dump(CORNERS))
    expected = Group.parse("corners", {"starts": CORNERS})
    assert Group.parse("corners", {"starts": str(path)}) == expected


def test_initial_states_of_recorded_episodes(tmp_path):
    states = record_with_states(tmp_path / "demos.zarr")
    group = Group.parse("demos", {"episodes": str(tmp_path / "demos.zarr"), "start_seed": 7})
    assert [start.name for start in group.starts] == ["episode_0", "episode_1"]
    assert [start.seed for start in group.starts] == [7, 8]
    assert [start.options for start in group.starts] == [{"state": list(s)} for s in states]


def test_a_view_of_a_store_passes_the_initial_states_on(tmp_path):
    states = record_with_states(tmp_path / "demos.zarr")
    store = PushTStore(str(tmp_path / "demos.zarr"), tmp_path / "cache")
    assert store.episode(1).initial_state.tolist() == list(states[1])


def record_with_states(path, states=((1.0, 2.0, 3.0, 4.0, 5.0), (6.0, 7.0, 8.0, 9.0, 0.0))):
    buffer = ReplayBuffer.create_empty_numpy()
    for state in states:
        buffer.add_episode({"state": np.array([state]), "action": np.zeros((1, 2))})
    buffer.update_meta({"initial_state": np.array(states)})
    buffer.save_to_path(path)
    return states


def test_recorded_actions_succeed_again_from_their_start():
    path = ROOT / "data" / "demonstrations" / "pusht_scripted.zarr.zip"
    buffer, env = ReplayBuffer.create_from_path(path), PushTEnv()
    for i, start in enumerate(Group.parse("demos", {"episodes": str(path), "n": 2}).starts):
        env.reset(seed=start.seed, options=start.options)
        steps = [env.step(action) for action in buffer.get_episode(i)["executed_action"]]
        assert [info["success"] for *_, info in steps] == [False] * (len(steps) - 1) + [True]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, "groups.g is 3; it may have episodes, starts"),
        ({"seeds": 3}, "it may have episodes, starts, start_seed, n, n_vis"),
        ({}, "give either episodes .*, starts .*, or start_seed and n"),
        ({"start_seed": 3}, "give either episodes"),
        ({"episodes": "a", "starts": []}, "give either episodes"),
        ({"n": 0}, "groups.g.n is 0; use a whole number, at least 1"),
        ({"n": 2, "n_vis": -1}, "groups.g.n_vis is -1"),
        ({"starts": []}, "groups.g has no starts"),
        ({"starts": [{"seed": 3}]}, "start 0 of task.env_runner.groups.g .* give it a name"),
        ({"starts": [{"name": "a", "state": []}]}, "start 0 of .* give it a name, and options"),
        ({"starts": [{"name": "a"}, {"name": "a"}]}, "two starts named 'a'; rename one"),
        ({"starts": [{"name": "a/b"}]}, "the name of a start is 'a/b'"),
        ({"starts": "nowhere.yaml"}, "the starts in nowhere.yaml cannot be read"),
        ({"episodes": "nowhere.zarr"}, "nowhere.zarr"),
    ],
)
def test_other_entries_are_refused(entry, message):
    with pytest.raises(UserError, match=message):
        Group.parse("g", entry)


def test_a_file_must_hold_a_list(tmp_path):
    (tmp_path / "a.yaml").write_text("left: {}")
    with pytest.raises(UserError, match=r"a\.yaml holds no list of starts; begin each"):
        Group.parse("g", {"starts": str(tmp_path / "a.yaml")})


def test_a_data_set_must_hold_initial_states(tmp_path):
    buffer = ReplayBuffer.create_empty_numpy()
    buffer.add_episode({"action": np.zeros((1, 2))})
    buffer.save_to_path(tmp_path / "demos.zarr")
    with pytest.raises(UserError, match=r"tells no initial state of episode 0.*use seeds"):
        Group.parse("g", {"episodes": str(tmp_path / "demos.zarr")})


def test_the_command_line_chooses_a_group_a_list_or_a_data_set(tmp_path):
    known = {"corners": {"starts": CORNERS, "n_vis": 2}}
    assert group_from("corners", known, 1, None) == ("corners", {**known["corners"], "n": 1})
    (tmp_path / "far away.yaml").touch()
    path = str(tmp_path / "far away.yaml")
    assert group_from(path, None, None, 8) == ("far_away", {"starts": path, "start_seed": 8})
    (tmp_path / "demos.zarr").mkdir()
    path = str(tmp_path / "demos.zarr")
    assert group_from(path, known, None, None) == ("demos", {"episodes": path})
    with pytest.raises(UserError, match="starts 'nowhere' are unknown; use corners, a data set"):
        group_from("nowhere", known, None, None)


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"seed_range": [3, 5]}, "seeds 3 to 5"),  # as early versions wrote
        ({"starts": None, "seed_range": [3, 5]}, "seeds 3 to 5"),
        ({"starts": "a.yaml", "seed_range": [0, 1]}, "starts of a.yaml"),
    ],
)
def test_text(info, expected):
    assert starts_text(info) == expected


@pytest.mark.parametrize(
    "text", ["- &a {name: x}\n- *a", "- name: ${oc.env:HOME}", "- {name: !!python/name:os.mkdir }"]
)
def test_a_list_of_starts_is_plain_data(tmp_path, text):
    path = tmp_path / "starts.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"the starts in .*starts\.yaml cannot be read"):
        Group.parse("a", {"starts": str(path)})
