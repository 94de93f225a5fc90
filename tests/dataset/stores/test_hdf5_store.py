from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from diffusion_policy.dataset.stores.hdf5_file import read_rows
from diffusion_policy.dataset.stores.hdf5_store import Hdf5Store
from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.dataset.window_dataset import WindowDataset
from diffusion_policy.spec.task_spec import Field
from diffusion_policy.spec.window import Window
from diffusion_policy.transforms.images import resized
from diffusion_policy.util.errors import UserError
from tests.dataset.stores.hdf5_files import (
    LENGTHS,
    TASK,
    episode_arrays,
    write_isaac_lab,
    write_robomimic,
)

EEF, IMAGE, ACTION = Field((3,)), Field((3, 8, 10), "rgb", "VISUAL"), Field((7,))


@pytest.fixture
def path(tmp_path) -> Path:
    return write_robomimic(tmp_path / "demos.hdf5")


def edit(path: Path) -> h5py.File:
    return h5py.File(path, "r+")


def test_robomimic_is_recognised_and_described(path):
    store = open_store(path)
    assert isinstance(store, Hdf5Store)
    assert store.fps == 20
    assert store.embodiment == "Panda"
    assert store.features == {
        "agentview_image": IMAGE,
        "robot0_eef_pos": EEF,
        "action": ACTION,
        "next.reward": Field((1,)),
        "next.done": Field((1,)),
    }
    info = store.episode(2)
    np.testing.assert_array_equal(info.initial_state, episode_arrays(7, 2)["states"][0])
    assert info.task == TASK
    assert info.source.endswith("demos.hdf5, demo_2")


def test_isaac_lab_is_recognised_and_described(tmp_path):
    store = open_store(write_isaac_lab(tmp_path / "isaac.hdf5"))
    assert isinstance(store, Hdf5Store)
    assert store.fps == 50
    assert store.features == {
        "front": IMAGE,
        "joint_pos": EEF,
        "actions": ACTION,  # as observed
        "action": ACTION,
    }
    assert "is a group" in store.left_out["datagen_info"]
    info = store.episode(0)
    np.testing.assert_array_equal(info.initial_state, [6] * 6 + [7] * 7)
    assert info.task is None
    assert open_store(tmp_path / "isaac.hdf5", filter="success").demos == ["demo_0", "demo_2"]


def test_demos_come_in_the_order_of_their_numbers(tmp_path):
    lengths = tuple(range(1, 13))
    store = open_store(write_robomimic(tmp_path / "many.hdf5", lengths))
    assert np.diff(store.episode_ends, prepend=0).tolist() == list(lengths)


def test_a_filter_chooses_episodes(path):
    store = open_store(path, filter="train")
    assert np.diff(store.episode_ends, prepend=0).tolist() == [1, 7]
    found = store.read("action", np.array([0, 1]))
    expected = [episode_arrays(n, i)["actions"][0] for i, n in ((1, 1), (2, 7))]
    np.testing.assert_array_equal(found, np.float32(expected))


def test_a_list_of_texts_of_any_length_filters_too(path):
    with edit(path) as file:
        file.create_dataset("mask/mine", data=["demo_2", "demo_0"])
    assert sorted(open_store(path, filter="mine").demos) == ["demo_0", "demo_2"]


def test_a_filter_that_fits_another_file_is_refused(path):
    with edit(path) as file:
        file["mask/other"] = np.array(["demo_9"], "S")
        file["mask/none"] = np.array([], "S1")
        file["mask/numbers"] = np.arange(2)
    for name, told in {
        "other": "lists 'demo_9', but there is no such demo",
        "none": "keeps no episode",
        "numbers": "mask/numbers is no list of demos",
        "best": "filter is 'best'; use one of none, numbers, odd, other, train, or null",
    }.items():
        with pytest.raises(UserError, match=told):
            open_store(path, filter=name)


def test_another_array_can_be_the_action(path):
    with edit(path) as file:
        for demo in file["data"].values():
            demo["action_dict/abs_pos"] = np.ones((len(demo["actions"]), 3))
    store = Hdf5Store(path, action="action_dict/abs_pos")
    assert store.features["action"] == Field((3,))


def test_a_task_trains_from_a_file(path):
    meta = {
        "obs": {
            "agentview_image": {"shape": [3, 8, 10], "type": "rgb"},
            "robot0_eef_pos": {"shape": [3]},
            "task": {"type": "text"},
        },
        "action": {"shape": [7]},
    }
    window = Window((-1, 0), (0, 1, 2))
    dataset = WindowDataset(path, meta, window, val_ratio=0)
    assert len(dataset) == sum(LENGTHS)
    assert dataset[0]["obs"]["task"] == TASK


@pytest.mark.parametrize("chunks", [None, True, (2, 8, 10, 3), (3, 4, 5, 1)])
def test_rows_are_read_in_one_go_by_chunk_or_run(tmp_path, chunks):
    values = np.random.default_rng(0).integers(0, 256, (40, 8, 10, 3), np.uint8)
    with h5py.File(tmp_path / "rows.hdf5", "w") as file:
        array = file.create_dataset("x", data=values, chunks=chunks)
        for rows in ([], [0], [39], [3, 4, 5], [0, 1, 7, 8, 9, 20, 39], range(40)):
            rows = np.array(rows, np.int64)
            np.testing.assert_array_equal(read_rows(array, rows), values[rows])


def images_of(lengths=LENGTHS) -> np.ndarray:
    """(N, 3, H, W) of the files."""
    episodes = [episode_arrays(n, i)["obs/agentview_image"] for i, n in enumerate(lengths)]
    return np.concatenate(episodes).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("cache", [None, "none", "disk", "memory"])
@pytest.mark.parametrize("how", [{}, {"compression": "gzip", "shuffle": True, "fletcher32": True}])
def test_packed_and_plain_files_read_alike_with_every_cache(tmp_path, how, cache):
    path = write_robomimic(tmp_path / "demos.hdf5", **how)
    store = open_store(path, tmp_path / "cache", cache=cache)
    store.prepare({"agentview_image": IMAGE})
    steps = np.array([[12, 0, 12], [5, 6, 4]])
    np.testing.assert_array_equal(store.read("agentview_image", steps), images_of()[steps])
    kept = list(tmp_path.glob("cache/agentview_image-*.npy"))
    assert bool(kept) == (cache == "disk" or (cache is None and bool(how)))


@pytest.mark.parametrize("cache", ["none", "disk"])
def test_images_are_scaled_as_resize_does(tmp_path, cache):
    path = write_robomimic(tmp_path / "demos.hdf5")
    store = open_store(path, tmp_path / "cache", cache=cache)
    assert store.scale("agentview_image", 4, 5)
    assert not store.scale("robot0_eef_pos", 4, 5)
    store.prepare({"agentview_image": IMAGE})
    expected = resized(images_of(), 4, 5)[[3, 0]]
    np.testing.assert_array_equal(store.read("agentview_image", np.array([3, 0])), expected)


def test_a_cache_is_that_of_the_file_and_the_chosen_episodes(tmp_path):
    path = write_robomimic(tmp_path / "demos.hdf5", compression="gzip")
    for chosen, lengths in ((None, (0, 1, 2)), ("train", (1, 2))):
        store = open_store(path, tmp_path / "cache", filter=chosen)
        images = [episode_arrays(LENGTHS[i], i)["obs/agentview_image"] for i in lengths]
        found = store.read("agentview_image", np.arange(store.n_steps))
        np.testing.assert_array_equal(found, np.concatenate(images).transpose(0, 3, 1, 2))


def test_a_cache_that_is_none_is_refused(path):
    with pytest.raises(UserError, match="cache is 'ram'; use none, disk, memory"):
        open_store(path, cache="ram")


def test_depth_is_read_in_metres(path):
    with edit(path) as file:
        for demo in file["data"].values():
            n = len(demo["actions"])
            demo["obs/depth"] = np.full((n, 16, 20, 1), 0.5, np.float32)
            demo["obs/raw_depth"] = np.full((n, 16, 20), 500, np.uint16)
    store = open_store(path)
    for key in ("depth", "raw_depth"):
        assert store.features[key] == Field((1, 16, 20), "depth", "DEPTH")
        found = store.read(key, np.array([3, 1]))
        assert found.shape == (2, 1, 16, 20)
        np.testing.assert_array_equal(found, np.float32(0.5))


def test_a_store_can_be_pickled_after_it_was_read(path):
    store = open_store(path)
    before = store.read("agentview_image", np.array([3]))
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.read("agentview_image", np.array([3])), before)


def test_without_h5py_a_line_names_the_extra(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"needs h5py, .*diffusion_policy\[hdf5\]"):
        open_store(path)


def prepared(path: Path) -> None:
    store = open_store(path)
    store.prepare(store.features)
    store.read("agentview_image", np.arange(store.n_steps))
    for i in range(len(store.episode_ends)):
        store.episode(i)


def no_demos(file):
    del file["data"]
    file.create_group("data")


def no_data(file):
    del file["data"]


def no_actions(file):
    del file["data/demo_1/actions"]


def no_rows(file):
    del file["data/demo_1/actions"]
    file["data/demo_1/actions"] = np.zeros((0, 7))


def another_name(file):
    file.move("data/demo_1", "data/episode_one")


def unequal_lengths(file):
    del file["data/demo_1/obs/robot0_eef_pos"]
    file["data/demo_1/obs/robot0_eef_pos"] = np.zeros((4, 3))


def unequal_shapes(file):
    del file["data/demo_1/obs/robot0_eef_pos"]
    file["data/demo_1/obs/robot0_eef_pos"] = np.zeros((1, 4))


def missing_key(file):
    del file["data/demo_1/obs/robot0_eef_pos"]


def wrong_count(file):
    file["data/demo_2"].attrs["num_samples"] = 6


def external_link(file):
    del file["data/demo_1/actions"]
    file["data/demo_1/actions"] = h5py.ExternalLink("/etc/hostname", "x")


def soft_link(file):
    del file["data/demo_1/actions"]
    file["data/demo_1/actions"] = h5py.SoftLink("/data/demo_0/actions")


def linked_demo(file):
    file["data/demo_3"] = h5py.SoftLink("/data/demo_0")


def virtual(file):
    del file["data/demo_0/actions"]
    layout = h5py.VirtualLayout((5, 7), np.float64)
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (5, 7))
    file["data/demo_0"].create_virtual_dataset("actions", layout)


def stored_elsewhere(file):
    del file["data/demo_0/actions"]
    file["data/demo_0"].create_dataset(
        "actions", (5, 7), "f8", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)]
    )


def other_filter(file):
    del file["data/demo_0/actions"]
    file["data/demo_0"].create_dataset("actions", data=np.zeros((5, 7), "i4"), scaleoffset=0)


def objects(file):
    del file["data/demo_0/actions"]
    rows = file["data/demo_0"].create_dataset("actions", (5,), h5py.vlen_dtype(np.float32))
    rows[:] = [np.arange(i + 1, dtype=np.float32) for i in range(5)]


def texts(file):
    del file["data/demo_0/actions"]
    file["data/demo_0/actions"] = np.array(["left"] * 5, "S")


def huge(file):
    for name in ("actions", "obs/robot0_eef_pos"):
        del file[f"data/demo_0/{name}"]
        file["data/demo_0"].create_dataset(name, (2**34, 7), "f4", chunks=(1024, 7))
    file["data/demo_0"].attrs["num_samples"] = 2**34


def never_written(file):
    del file["data/demo_0/actions"]
    file["data/demo_0"].create_dataset("actions", (5, 7), "f4")


def lost_chunks(file):
    del file["data/demo_0/actions"]
    array = file["data/demo_0"].create_dataset("actions", (5, 7), "f4", chunks=(1, 7))
    array[:4] = 1


def not_json(file):
    file["data"].attrs["env_args"] = "{"


def cycle(file):
    state = file.create_group("data/demo_0/initial_state")
    state["again"] = state


def nan(file):
    file["data/demo_0/actions"][3, 2] = np.nan


BAD = {
    no_data: r"it has no group data; give a file of robomimic or Isaac Lab",
    no_demos: r"data holds no demo; record some or choose",
    no_actions: r"data/demo_1 has no actions; it has dones, ",
    no_rows: r"data/demo_1/actions has shape \[0, 7\]; drop the empty episode",
    another_name: r"data holds 'episode_one'; call every episode demo_<number>",
    unequal_lengths: r"demo_1/obs/robot0_eef_pos has shape \[4, 3\] but demo_1 has 1 actions",
    unequal_shapes: r"demo_1/obs/robot0_eef_pos holds float64 \[4\] a step but data/demo_0/obs/",
    missing_key: r"demo_1 has no obs/robot0_eef_pos, which demo_0 has; record it",
    wrong_count: r"data/demo_2 has 7 actions but says num_samples 6",
    external_link: r"demo_1/actions is a link to .*/etc/hostname.* in another file, which is not",
    soft_link: r"demo_1/actions is a link to .*demo_0/actions.* in the file, which is not foll",
    linked_demo: r"data/demo_3 is a link",
    virtual: r"demo_0/actions lies in another file, which is not opened; store the array",
    stored_elsewhere: r"demo_0/actions lies in another file, which is not opened",
    other_filter: r"demo_0/actions is packed with filter 6 .*; pack it with gzip or lzf",
    objects: r"demo_0/actions holds object \[5\], which are no rows of numbers",
    texts: r"demo_0/actions holds \|S4 \[5\], which are no rows of numbers",
    huge: r"demo_0/actions, \[17179869184, 7\] float32, would take 481036337152 bytes",
    never_written: r"demo_0/actions was never written; record or fetch",
    lost_chunks: r"demo_0/actions lacks 1 of its 5 chunks",
    not_json: r"the attribute env_args of /data is damaged",
    cycle: r"is its own part",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_what_is_wrong_is_told_in_one_line(path, spoil):
    with edit(path) as file:
        spoil(file)
    with pytest.raises(UserError, match=f"demos.hdf5: .*{BAD[spoil]}") as error:
        prepared(path)
    assert "\n" not in str(error.value)


def test_nan_is_refused_before_training(path):
    with edit(path) as file:
        nan(file)
    with pytest.raises(UserError, match="action is not finite in episode 0 at step 3"):
        WindowDataset(path, {"obs": {"robot0_eef_pos": EEF_META}, "action": {"shape": [7]}}, NOW)


EEF_META, NOW = {"shape": [3]}, Window((0,), (0,))


def test_a_file_that_is_cut_short_is_told(path):
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UserError, match=r"demos.hdf5 cannot be read as HDF5 \(it is cut short\)"):
        open_store(path)


def test_other_formats_have_no_filter(tmp_path):
    with pytest.raises(UserError, match=r"filter is 'train', but only HDF5"):
        open_store(tmp_path / "demos.zarr", filter="train")


def test_the_task_of_all_episodes_is_read(path):
    with edit(path) as file:
        for demo in file["data"].values():
            del demo.attrs["ep_meta"]
        file["data"].attrs["problem_info"] = json.dumps({"language_instruction": ["open it"]})
    assert open_store(path).episode(0).task == "open it"
