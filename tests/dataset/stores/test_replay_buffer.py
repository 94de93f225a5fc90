"""The store of episodes: what goes in comes out, and survives kills, damage and wrong use."""

from __future__ import annotations

import functools
import http.server
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
import zipfile
from pathlib import Path

import fsspec
import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_policy.dataset.stores.checks import check_finite
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.util.errors import UserError


def episode(length: int, value: int = 0) -> dict[str, np.ndarray]:
    """Arrays that tell episode and step apart."""
    steps = np.arange(length)
    return {
        "action": np.stack([steps + 100 * value, steps - 7], axis=1).astype(np.float32),
        "image": np.broadcast_to(
            (steps[:, None, None, None] * 3 + value) % 256, (length, 3, 4, 4)
        ).astype(np.uint8),
    }


def filled(buffer: ReplayBuffer, lengths: tuple[int, ...] = (3, 1, 5)) -> ReplayBuffer:
    for i, length in enumerate(lengths):
        buffer.add_episode(episode(length, i + 1))
    return buffer


def assert_holds(buffer: ReplayBuffer, episodes: list[dict[str, np.ndarray]]) -> None:
    lengths = [len(e["action"]) for e in episodes]
    assert buffer.n_episodes == len(episodes)
    assert buffer.n_steps == sum(lengths)
    assert buffer.episode_lengths.tolist() == lengths
    assert buffer.episode_ends.tolist() == np.cumsum(lengths, dtype=int).tolist()
    assert buffer.get_episode_idxs().tolist() == np.repeat(range(len(lengths)), lengths).tolist()
    for i, expected in enumerate(episodes):
        found = buffer.get_episode(i)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value)
            assert found[key].dtype == value.dtype


def empty(kind: str, folder: Path) -> ReplayBuffer:
    if kind == "numpy":
        return ReplayBuffer.create_empty_numpy()
    if kind == "memory":
        return ReplayBuffer.create_empty_zarr()
    return ReplayBuffer.create_empty_zarr(folder / "set.zarr", zarr_format=int(kind[-1]))


KINDS = ["numpy", "memory", "folder of format 2", "folder of format 3"]
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 6)),
        st.tuples(st.sampled_from(["drop", "pop", "reopen"]), st.just(0)),
        st.tuples(st.just("truncate"), st.integers(0, 4)),
        st.tuples(st.just("edit"), st.integers(0, 5)),
    ),
    max_size=8,
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None)
@given(operations=OPERATIONS)
def test_changes_act_like_a_list_of_episodes(kind, operations):
    folder = Path(tempfile.mkdtemp())
    try:
        buffer, model = empty(kind, folder), []
        for count, (name, number) in enumerate(operations):
            if name == "add":
                # Two steps a chunk: episodes share chunks and cross them.
                chunks = {"action": (2, 2), "image": (2, 3, 4, 4)}
                buffer.add_episode(episode(number, count), chunks=chunks)
                model.append(episode(number, count))
            elif name == "truncate":
                buffer.truncate(min(number, len(model)))
                del model[number:]
            elif name == "edit" and model:
                at = number % len(model)
                new = episode(len(model[at]["action"]), 90 + count)
                buffer.edit(buffer.get_episode_slice(at).start, new)
                model[at] = new
            elif name == "drop" and model:
                buffer.drop_episode()
                model.pop()
            elif name == "pop" and model:
                popped, expected = buffer.pop_episode(), model.pop()
                np.testing.assert_array_equal(popped["image"], expected["image"])
            elif name == "reopen" and kind.startswith("folder"):
                buffer = ReplayBuffer.create_from_path(folder / "set.zarr", mode="r+")
            assert_holds(buffer, model)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["copy.zarr", "copy.zarr.zip"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_saved_and_loaded_again(tmp_path, name, zarr_format):
    buffer = filled(ReplayBuffer.create_empty_numpy())
    buffer.update_meta({"rate": np.array(10.0)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a zip warns of a name written twice
        buffer.save_to_path(tmp_path / name, zarr_format=zarr_format, chunks={"action": (4, 1)})
    expected = [episode(3, 1), episode(1, 2), episode(5, 3)]
    on_disk = ReplayBuffer.create_from_path(tmp_path / name)
    assert_holds(on_disk, expected)
    assert on_disk.root.metadata.zarr_format == zarr_format
    assert on_disk.get_chunks()["action"] == (4, 1)
    assert (on_disk.backend, buffer.backend) == ("zarr", "numpy")
    for backend in ("numpy", "zarr"):
        copied = ReplayBuffer.copy_from_path(tmp_path / name, backend=backend)
        assert copied.backend == backend
        assert_holds(copied, expected)
        assert copied.meta["rate"][()] == 10.0
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_only_chosen_keys_are_copied_and_converted(tmp_path):
    buffer = ReplayBuffer.create_empty_numpy()
    buffer.add_episode({"image": np.float32([[0], [255]]), "other": np.zeros(2)})
    buffer.save_to_path(tmp_path / "a.zarr")
    copied = ReplayBuffer.copy_from_path(
        tmp_path / "a.zarr", keys=["image"], dtypes={"image": np.uint8}
    )
    assert list(copied.keys()) == ["image"]
    assert "other" not in copied
    assert copied["image"].dtype == np.uint8
    assert copied["image"].tolist() == [[0], [255]]


def test_a_lossy_conversion_is_refused(tmp_path):
    buffer = ReplayBuffer.create_empty_numpy()
    buffer.add_episode({"image": np.float32([[0], [0.5]])})
    with pytest.raises(UserError, match=r"data/image holds 0\.5, which uint8 cannot"):
        buffer.read("image", np.uint8)


def test_an_existing_data_set_is_not_overwritten_unless_asked(tmp_path):
    path = tmp_path / "a.zarr"
    buffer = filled(ReplayBuffer.create_empty_numpy())
    buffer.save_to_path(path)
    other = ReplayBuffer.create_empty_numpy()
    other.add_episode(episode(2))
    for refused in (
        lambda: other.save_to_path(path),
        lambda: other.save_to_store(path),
        lambda: ReplayBuffer.create_empty_zarr(path),
        lambda: ReplayBuffer.copy_from_path(path, store=path, if_exists="replace"),
    ):
        with pytest.raises(UserError, match=r"a\.zarr"):
            refused()
    assert ReplayBuffer.create_from_path(path).n_steps == 9
    other.save_to_path(path, if_exists="replace")
    assert ReplayBuffer.create_from_path(path).n_steps == 2
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_a_failed_save_leaves_the_old_data_set(tmp_path):
    path = tmp_path / "a.zarr"
    filled(ReplayBuffer.create_empty_numpy()).save_to_path(path)
    with pytest.raises(UserError, match="chunks of 'action'"):
        filled(ReplayBuffer.create_empty_numpy()).save_to_path(
            path, if_exists="replace", chunks={"action": (1, 2, 3)}
        )
    assert ReplayBuffer.create_from_path(path).n_episodes == 3
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("kind", KINDS[1:])
def test_arrays_are_stored_anew_with_other_chunks_and_compressors(kind, tmp_path):
    buffer = filled(empty(kind, tmp_path))
    assert buffer.chunk_size == buffer.get_chunks()[next(iter(buffer.keys()))][0]
    buffer.set_chunks({"action": (2, 1)})
    buffer.set_compressors({"action": None, "image": "disk"})
    assert buffer.get_chunks()["action"] == (2, 1)
    assert buffer.get_compressors()["action"] == ()
    assert "zstd" in repr(buffer.get_compressors()["image"])
    buffer.add_episode(episode(4, 4))
    assert_holds(buffer, [episode(3, 1), episode(1, 2), episode(5, 3), episode(4, 4)])


def test_append_can_follow_a_reopen_and_needs_no_other_order_of_keys(tmp_path):
    ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a").add_episode(episode(2, 1))
    buffer = ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a")
    buffer.extend(dict(reversed(episode(3, 2).items())))
    assert_holds(ReplayBuffer.create_from_path(tmp_path / "a.zarr"), [episode(2, 1), episode(3, 2)])


def test_slices_views_and_copies():
    buffer = filled(ReplayBuffer.create_empty_numpy())
    assert buffer.get_episode_slice(-1) == slice(4, 9)
    with pytest.raises(IndexError):
        buffer.get_episode_slice(3)
    buffer.get_episode(0, copy=True)["action"][:] = -1
    assert buffer["action"][0, 0] == 100
    buffer.get_episode(0)["action"][:] = -1
    assert buffer["action"][0, 0] == -1
    steps = buffer.get_steps_slice(2, 5)
    np.testing.assert_array_equal(steps["image"], buffer["image"][2:5])


# ---------------------------------------------------------------------- killed at any moment


CHANGES = ("replace", "rename", "unlink", "rmtree")
MOVES = ("rename", "rmtree")
"""Where a whole folder takes the place of another; what is written before is not yet visible."""


def die_before_change(kill_at: int, changes: tuple[str, ...] = CHANGES) -> None:
    """Make this process kill itself before its ``kill_at``-th change of the folder's entries."""
    count = 0

    def counting(change):
        def wrapped(*args, **kwargs):
            nonlocal count
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return change(*args, **kwargs)

        return wrapped

    for owner in (Path, shutil):
        for name in vars(owner).keys() & changes:
            setattr(owner, name, counting(getattr(owner, name)))


def append(buffer: ReplayBuffer) -> None:
    buffer.add_episode(episode(5, 3))


def drop(buffer: ReplayBuffer) -> None:
    buffer.drop_episode()


def drop_and_append(buffer: ReplayBuffer) -> None:
    buffer.drop_episode()
    buffer.add_episode(episode(5, 3))


def start_over(buffer: ReplayBuffer) -> None:
    buffer.truncate(0)
    buffer.add_episode({"other": np.arange(4.0)})


def rewrite(buffer: ReplayBuffer) -> None:
    buffer.set_chunks({"action": (3, 1)})
    buffer.set_compressors({"image": None})


def replace_meta(buffer: ReplayBuffer) -> None:
    buffer.update_meta({"rate": np.full(3, 2.0)})


def save_over(buffer: ReplayBuffer) -> None:
    copied = ReplayBuffer.copy_from_store(buffer.root)
    copied.drop_episode()
    copied.save_to_path(buffer.root.store.root, if_exists="replace")


FIRST, SECOND, THIRD = episode(3, 1), episode(4, 2), episode(5, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "steps", "allowed"),
    [
        (append, CHANGES, [[FIRST, SECOND], [FIRST, SECOND, THIRD]]),
        (drop, CHANGES, [[FIRST, SECOND], [FIRST]]),
        (drop_and_append, CHANGES, [[FIRST, SECOND], [FIRST], [FIRST, THIRD]]),
        (start_over, CHANGES, [[FIRST, SECOND], [FIRST], [], [{"other": np.arange(4.0)}]]),
        (rewrite, MOVES, [[FIRST, SECOND]]),
        (replace_meta, MOVES, [[FIRST, SECOND]]),
        (save_over, MOVES, [[FIRST, SECOND], [FIRST]]),
    ],
)
@pytest.mark.filterwarnings("ignore:steps beyond the last episode end")
@pytest.mark.filterwarnings("ignore:Object at .* is not recognized")  # unfinished, unread files
def test_a_kill_at_any_write_leaves_whole_episodes(tmp_path, change, steps, allowed):
    original = tmp_path / "original.zarr"
    buffer = ReplayBuffer.create_empty_zarr(original)
    for i, length in enumerate([3, 4]):
        chunks = {"action": (2, 2), "image": (3, 3, 4, 4)}
        buffer.add_episode(episode(length, i + 1), chunks=chunks)
    buffer.update_meta({"rate": np.ones(3)})

    def run(path: Path, kill_at: int) -> None:
        victim = ReplayBuffer.create_from_path(path, mode="r+")
        die_before_change(kill_at, steps)
        change(victim)

    exit_code, kill_at, left = None, 0, set()
    while exit_code != 0:
        path = shutil.copytree(original, tmp_path / f"{kill_at}.zarr")
        process = multiprocessing.get_context("fork").Process(target=run, args=(path, kill_at))
        process.start()
        process.join()
        exit_code = process.exitcode
        assert exit_code in (0, -signal.SIGKILL)
        buffer = ReplayBuffer.create_from_path(path, mode="r+")
        found = [buffer.get_episode(i) for i in range(buffer.n_episodes)]
        state = next(i for i, episodes in enumerate(allowed) if same(found, episodes))
        left.add(state)
        assert len(set(buffer.read_meta("rate"))) == 1  # all old or all new
        # Going on after the kill works and leaves no trace of it.
        extra = {k: v[:2] + 1 for k, v in (found or [FIRST])[0].items()}
        buffer.add_episode(extra)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "steps beyond")
            reopened = ReplayBuffer.create_from_path(path)
        reread = [reopened.get_episode(i) for i in range(reopened.n_episodes)]
        assert same(reread, [*found, extra])
        kill_at += 1
    assert kill_at >= 3
    assert left == set(range(len(allowed)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Object at .* is not recognized")
def test_a_kill_while_a_data_set_is_made_leaves_one_that_opens(tmp_path):
    exit_code, kill_at = None, 0

    def run(path: Path, kill_at: int) -> None:
        die_before_change(kill_at)
        ReplayBuffer.create_empty_zarr(path)

    while exit_code != 0:
        path = tmp_path / f"{kill_at}.zarr"
        process = multiprocessing.get_context("fork").Process(target=run, args=(path, kill_at))
        process.start()
        process.join()
        exit_code = process.exitcode
        ReplayBuffer.create_from_path(path, mode="a").add_episode(FIRST)
        assert_holds(ReplayBuffer.create_from_path(path), [FIRST])
        kill_at += 1
    assert kill_at > 3


def same(found: list[dict], expected: list[dict]) -> bool:
    return len(found) == len(expected) and all(
        f.keys() == e.keys() and all(np.array_equal(f[k], e[k]) for k in e)
        for f, e in zip(found, expected, strict=True)
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:steps beyond the last episode end")
def test_a_kill_from_outside_leaves_whole_episodes(tmp_path):
    script = f"""
import itertools, numpy as np
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
buffer = ReplayBuffer.create_from_path({str(tmp_path / "a.zarr")!r}, mode="a")
for i in itertools.count():
    buffer.add_episode({{"x": np.full((50, 1000), i)}}, chunks=(70, 1000))
    print(i, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        for _ in range(20):
            told = int(process.stdout.readline())
        process.kill()
        told = int((process.stdout.read().split() or [told])[-1])
    buffer = ReplayBuffer.create_from_path(tmp_path / "a.zarr")
    assert buffer.n_episodes in (told + 1, told + 2)
    for i in range(buffer.n_episodes):
        assert (buffer.get_episode(i)["x"] == i).all()


# ---------------------------------------------------------------------- where data sets lie


def test_a_zip_may_hold_the_group_in_a_folder(tmp_path):
    filled(ReplayBuffer.create_empty_numpy()).save_to_path(tmp_path / "a" / "b" / "set.zarr")
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "a")
    assert ReplayBuffer.create_from_path(tmp_path / "packed.zip").n_steps == 9


def test_data_sets_are_read_through_fsspec():
    buffer = ReplayBuffer.create_from_path("memory://sets/a.zarr", mode="a")
    filled(buffer)
    assert ReplayBuffer.create_from_path("memory://sets/a.zarr").n_steps == 9
    with tempfile.TemporaryDirectory() as folder:
        buffer.save_to_path(Path(folder) / "a.zip")
        content = (Path(folder) / "a.zip").read_bytes()
    with fsspec.open("memory://sets/a.zip", "wb") as file:
        file.write(content)
    assert ReplayBuffer.copy_from_path("memory://sets/a.zip").n_steps == 9


@pytest.fixture
def served(tmp_path):
    """Folder ``tmp_path`` behind a real HTTP server; yields its address."""
    handler = functools.partial(_QuietHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_data_sets_are_read_over_http(tmp_path, served):
    pytest.importorskip("aiohttp")
    for name in ("a.zarr", "a.zarr.zip"):
        filled(ReplayBuffer.create_empty_numpy()).save_to_path(tmp_path / name)
        copied = ReplayBuffer.copy_from_path(f"{served}/{name}")
        assert_holds(copied, [episode(3, 1), episode(1, 2), episode(5, 3)])
    for name in ("missing.zarr", "missing.zip"):
        with pytest.raises(UserError, match="missing"):
            ReplayBuffer.create_from_path(f"{served}/{name}")


# ---------------------------------------------------------------------- what is wrong is named


def save_raw(path: Path, data: dict[str, np.ndarray], meta: dict[str, np.ndarray]) -> Path:
    root = zarr.open_group(path, mode="w")
    for name, arrays in (("data", data), ("meta", meta)):
        group = root.create_group(name)
        for key, value in arrays.items():
            group.create_array(key, data=value)
    return path


ENDS = np.array([2, 5])
X = np.arange(5.0)


@pytest.mark.parametrize(
    ("data", "meta", "message"),
    [
        ({"x": X}, {}, "no array meta/episode_ends"),
        ({"x": X}, {"episode_ends": np.array([2, 2, 5])}, r"episode_ends\[1\] is 2, not above 2"),
        ({"x": X}, {"episode_ends": np.array([0, 5])}, r"episode_ends\[0\] is 0, not above 0"),
        ({"x": X}, {"episode_ends": np.array([2, 9])}, "data/x has 5 steps but .* counts 9"),
        ({"x": X, "y": X[:4]}, {"episode_ends": ENDS}, "data/y has 4 steps but .* counts 5"),
        ({"x": X}, {"episode_ends": np.array([2.0, 5.0])}, "type float64"),
        ({"x": X}, {"episode_ends": np.array([[2, 5]])}, r"shape \(1, 2\)"),
    ],
)
def test_wrong_contents_are_named(tmp_path, data, meta, message):
    path = save_raw(tmp_path / "bad.zarr", data, meta)
    with pytest.raises(UserError, match=message) as caught:
        ReplayBuffer.create_from_path(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_longer_arrays_are_warned_of_and_cut(tmp_path):
    path = save_raw(tmp_path / "a.zarr", {"x": X}, {"episode_ends": np.array([2, 3, 0])})
    with pytest.warns(UserWarning, match=r"beyond the last episode end are ignored \({'x': 2}\)"):
        buffer = ReplayBuffer.copy_from_path(path)
    assert buffer["x"].tolist() == [0, 1, 2]
    assert buffer.episode_ends.tolist() == [2, 3]


def test_wrong_places_are_named(tmp_path):
    whole = tmp_path / "whole.zip"
    filled(ReplayBuffer.create_empty_numpy()).save_to_path(whole)
    filled(ReplayBuffer.create_empty_numpy()).save_to_path(tmp_path / "set" / "inner.zarr")
    (tmp_path / "cut.zip").write_bytes(whole.read_bytes()[:-100])
    (tmp_path / "file.zarr").write_text("no zarr")
    (tmp_path / "folder").mkdir()
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "no zarr")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for name in ("a", "b"):
            archive.writestr(f"{name}/meta/episode_ends/zarr.json", "{}")
    save_raw(tmp_path / "empty.zarr", {}, {})
    shutil.rmtree(tmp_path / "empty.zarr" / "meta")
    for name, message in {
        "missing.zarr": "does not exist",
        "cut.zip": "not a whole zip file",
        "file.zarr": "not a whole zip file",
        "folder": "not a zarr group",
        "set": r"did you mean .*inner\.zarr",
        "other.zip": "has none",
        "two.zip": r"has 2 of them: \['a', 'b'\]",
        "empty.zarr": "no group 'meta'",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            ReplayBuffer.create_from_path(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(UserError, match="read only"):
        ReplayBuffer.create_from_path(whole, mode="r+")


def test_damage_inside_is_named(tmp_path):
    path = tmp_path / "a.zarr"
    filled(ReplayBuffer.create_empty_numpy()).save_to_path(path)
    chunk = next(p for p in (path / "data" / "action" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(UserError, match="data/action cannot be decoded in rows 0 to 9"):
        ReplayBuffer.copy_from_path(path)
    (path / "data" / "action" / "zarr.json").write_text('{"shape"')
    with pytest.raises(UserError, match="is damaged"):
        ReplayBuffer.create_from_path(path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "one length"),
        ({"action": np.zeros((0, 2))}, "at least 1"),
        ({"action": np.zeros((2, 2)), "image": np.zeros((3, 3, 4, 4), np.uint8)}, "'image': 3"),
        ({"action": np.zeros((2, 2))}, r"keys \['action'\] but the data set has"),
        (episode(2) | {"action": np.zeros((2, 3))}, r"'action' has steps of shape \(3,\)"),
        (episode(2) | {"image": np.zeros((2, 3, 4, 4))}, "'image' has type float64 but uint8"),
        (episode(2) | {"action": np.zeros((2, 2), complex)}, "store numbers or texts"),
        (episode(2) | {"action": np.full((2, 2), "a")}, "'action' has type StringDType"),
        (episode(2) | {".a": np.zeros(2)}, "cannot name an array"),
    ],
)
@pytest.mark.parametrize("kind", ["numpy", "memory"])
def test_an_episode_that_does_not_fit_is_refused_whole(wrong, message, kind, tmp_path):
    buffer = filled(empty(kind, tmp_path))
    with pytest.raises(UserError, match=message):
        buffer.add_episode(wrong)
    assert_holds(buffer, [episode(3, 1), episode(1, 2), episode(5, 3)])


def test_wrong_use_is_named():
    buffer = filled(ReplayBuffer.create_empty_numpy())
    with pytest.raises(UserError, match=r"no data/x: it has \['action', 'image'\]"):
        buffer["x"]
    with pytest.raises(UserError, match="steps 8 to 10 of 'action' are outside the 9 stored"):
        buffer.edit(8, {"action": np.zeros((2, 2))})
    with pytest.raises(UserError, match="in memory has no chunks"):
        buffer.set_chunks({"action": (2, 2)})
    with pytest.raises(UserError, match="choose one of"):
        buffer.save_to_store(None, compressors="zip")
    with pytest.raises(UserError, match="follows the episodes"):
        buffer.update_meta({"episode_ends": ENDS})
    with pytest.raises(IndexError):
        buffer.truncate(4)
    with pytest.raises(IndexError):
        ReplayBuffer.create_empty_numpy().pop_episode()


def test_the_first_value_that_is_not_finite_is_named():
    array = np.zeros((5, 2), np.float32)
    check_finite(array, "state", ENDS)
    check_finite(np.full((5, 2), 3e38, np.float32), "state", ENDS)
    check_finite(np.full((5, 2), 255, np.uint8), "image", ENDS)
    array[3, 1] = np.nan
    array[4, 0] = np.inf
    with pytest.raises(UserError, match="data/state is not finite in episode 1 at step 1"):
        check_finite(array, "state", ENDS)


@pytest.mark.parametrize("shuffle", [-1, 0, 1, 2])
def test_codecs_of_numcodecs_serve_both_formats(tmp_path, shuffle):
    codec = numcodecs.Blosc(cname="zstd", clevel=3, shuffle=shuffle)
    for zarr_format in (2, 3):
        buffer = filled(ReplayBuffer.create_empty_numpy())
        path = tmp_path / f"{zarr_format}.zarr"
        buffer.save_to_path(path, compressors=codec, zarr_format=zarr_format)
        stored = ReplayBuffer.create_from_path(path)
        (found,) = stored.get_compressors()["action"]
        assert (getattr(found.cname, "value", found.cname), found.clevel) == ("zstd", 3)
        np.testing.assert_array_equal(stored["action"][:], buffer["action"])
    with pytest.raises(UserError, match=r"compressor of 'action' is LZ4.*zarr_format=2"):
        buffer.save_to_path(tmp_path / "b.zarr", compressors={"action": numcodecs.LZ4()})
