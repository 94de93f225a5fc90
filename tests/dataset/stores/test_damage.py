"""Damaged, hostile and half-written data sets: each ends in one line, none in other values."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import random
import resource
import shutil
import stat
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.core.sync import sync

from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.stores.zarr_store import ZarrStore
from diffusion_policy.spec.task_spec import Field
from diffusion_policy.util.errors import UserError

LENGTHS = (5, 4, 6)
CHUNKS = {"action": (4, 2), "img": (4, 3, 4, 4), "text": (4,)}


def recorded(n: int = sum(LENGTHS)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "action": rng.normal(size=(n, 2)).astype(np.float32),
        "img": rng.integers(0, 256, (n, 3, 4, 4), dtype=np.uint8),
        "text": np.array([f"step {i}" for i in range(n)]),
    }


def ours(path: Path, zarr_format: int) -> Path:
    """A data set as this project writes it."""
    buffer = ReplayBuffer.create_empty_zarr(path, zarr_format=zarr_format)
    arrays = recorded()
    for end, length in zip(np.cumsum(LENGTHS), LENGTHS, strict=True):
        steps = slice(end - length, end)
        buffer.add_episode({key: a[steps] for key, a in arrays.items()}, chunks=CHUNKS)
    buffer.update_meta({"initial_state": np.ones((len(LENGTHS), 5))})
    return path


def of_others(path: Path, zarr_format: int) -> Path:
    """A data set as zarr itself writes it: no checksums, and Blosc outermost."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    packed = numcodecs.Blosc("lz4") if zarr_format == 2 else zarr.codecs.BloscCodec(cname="lz4")
    for key, values in {f"data/{k}": v for k, v in recorded().items() if k != "text"}.items():
        chunks = CHUNKS[key.removeprefix("data/")]
        group.create_array(key, data=values, chunks=chunks, compressors=packed)
    group.create_array("meta/episode_ends", data=np.cumsum(LENGTHS), chunks=(2,))
    return path


def chunk(path: Path, array: str, number: int) -> Path:
    """The file of chunk ``number`` along the steps."""
    folder = path / array
    start = f"c/{number}" if (folder / "zarr.json").exists() else str(number)
    return next(
        p
        for p in folder.rglob("*")
        if p.is_file() and f"{p.relative_to(folder)}/".startswith((f"{start}/", f"{start}."))
    )


def read_all(path: Path) -> None:
    ReplayBuffer.copy_from_path(path)


def read_an_episode(path: Path) -> None:
    ReplayBuffer.create_from_path(path).get_episode(1)


def read_a_slice(path: Path) -> None:
    buffer = ReplayBuffer.create_from_path(path)
    for key in buffer.keys():  # noqa: SIM118 -- it is no dict
        buffer[key][:]


def append(path: Path) -> None:
    ReplayBuffer.create_from_path(path, mode="r+").add_episode(recorded(3))


def prepare(path: Path) -> None:
    fields = {"action": Field((2,)), "img": Field((3, 4, 4), "rgb", "VISUAL")}
    ZarrStore(path, path.parent / "cache").prepare(fields)


# ---------------------------------------------------------------------- chunks


@pytest.mark.parametrize("use", [read_all, read_an_episode, read_a_slice, append, prepare])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_missing_chunk_is_refused_with_its_rows(tmp_path, zarr_format, use):
    path = ours(tmp_path / "a.zarr", zarr_format)
    chunk(path, "data/action", 1).unlink()
    with pytest.raises(UserError, match=r"data/action lacks 1 of its 4 chunks, from row 4 to 8"):
        use(path)
    assert not (tmp_path / "cache").exists()


def test_a_missing_chunk_is_refused_at_an_address(tmp_path):
    path = ours(tmp_path / "a.zarr", 3)
    buffer = ReplayBuffer.create_from_path(f"file://{path}")
    chunk(path, "data/img", 2).unlink()
    with pytest.raises(UserError, match="data/img lacks 1 of its 4 chunks, from row 8 to 12"):
        buffer.read("img")


def test_missing_ends_are_refused_rather_than_read_as_no_episodes(tmp_path):
    for path in (ours(tmp_path / "a.zarr", 3), of_others(tmp_path / "b.zarr", 2)):
        chunk(path, "meta/episode_ends", 0).unlink()
        for mode in ("r", "a"):
            with pytest.raises(UserError, match="meta/episode_ends lacks 1 of its"):
                ReplayBuffer.create_from_path(path, mode=mode)


@pytest.mark.filterwarnings("ignore:Object at .* is not recognized")
def test_what_is_no_array_does_not_count(tmp_path):
    path = ours(tmp_path / "a.zarr", 3)
    zarr.open_group(path, mode="r+").create_group("data/notes")
    (path / "data" / "stray").mkdir()
    append(path)
    assert set(ReplayBuffer.copy_from_path(path).keys()) == set(recorded())


def test_zeros_are_stored_like_other_numbers(tmp_path):
    buffer = ReplayBuffer.create_from_path(tmp_path / "a.zarr", mode="a")
    for _ in range(2):
        buffer.add_episode({"action": np.zeros((5, 2))}, chunks=(4, 2))
    buffer.edit(0, {"action": np.zeros((4, 2))})
    buffer.set_chunks({"action": (3, 2)})
    assert not ReplayBuffer.copy_from_path(tmp_path / "a.zarr")["action"].any()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_chunk_that_others_left_out_is_told(tmp_path, zarr_format):
    path = of_others(tmp_path / "a.zarr", zarr_format)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_all(path)
    for number in (1, 2):
        chunk(path, "data/action", number).unlink()
    with pytest.warns(UserWarning, match=r"data/action lacks 2 of its 4 chunks, from row 4 to 12"):
        copied = ReplayBuffer.copy_from_path(path)
    assert not copied["action"][4:12].any()


@pytest.mark.parametrize("make", [ours, of_others])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("array", ["data/img", "meta/episode_ends"])
def test_a_cut_chunk_is_refused(tmp_path, make, zarr_format, array):
    path = make(tmp_path / "a.zarr", zarr_format)
    file = chunk(path, array, 0)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=f"{array} cannot be decoded"):
        read_all(path)


@pytest.mark.filterwarnings("ignore:steps beyond")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_damaged_chunk_is_not_written_to(tmp_path, zarr_format):
    path = ours(tmp_path / "a.zarr", zarr_format)
    file = chunk(path, "data/action", 3)
    file.write_bytes(file.read_bytes()[:9])
    with pytest.raises(UserError, match="data/action cannot be decoded around row 15"):
        append(path)
    assert ReplayBuffer.create_from_path(path).n_episodes == len(LENGTHS)


def test_what_reads_other_chunks_has_ended_when_damage_is_told(tmp_path):
    async def still_running() -> int:
        return len(asyncio.all_tasks()) - 1

    path = ours(tmp_path / "a.zarr", 3)
    chunk(path, "data/action", 0).write_bytes(b"")
    for _ in range(5):
        with pytest.raises(UserError, match="cannot be decoded"):
            ReplayBuffer.create_from_path(path).read("action")
        assert sync(still_running()) == 0


def flip(raw: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(raw))
    return raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1 :]


def cut(raw: bytes, rng: random.Random) -> bytes:
    return raw[: rng.randrange(len(raw))]


def fill_with_zeros(raw: bytes, rng: random.Random) -> bytes:
    return cut(raw, rng).ljust(len(raw), b"\0")


def replace_words(raw: bytes, rng: random.Random) -> bytes:
    words = [b"null", b"-1", b"[]", b"{}", b'"x"', b"1e999", b"99999999999999999999"]
    parts = raw.split(b",")
    parts[rng.randrange(len(parts))] = rng.choice(words)
    return b",".join(parts)


DAMAGE = [flip, cut, fill_with_zeros, replace_words]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["folder of format 2", "folder of format 3", "zip"])
def test_any_damage_ends_in_one_line_or_changes_nothing(tmp_path, kind):
    path = ours(tmp_path / "a.zarr", 2 if "2" in kind else 3)
    if kind == "zip":
        ReplayBuffer.create_from_path(path).save_to_path(tmp_path / "a.zarr.zip")
        path = tmp_path / "a.zarr.zip"
    expected = recorded()
    files = sorted(p for p in path.rglob("*") if p.is_file()) or [path]
    rng = random.Random(0)
    refusals = []
    for i in range(100):
        file = rng.choice(files)
        raw = file.read_bytes()
        file.write_bytes(DAMAGE[i % len(DAMAGE)](raw, rng))
        try:
            copied = ReplayBuffer.copy_from_path(path)
        except UserError as error:
            refusals.append(str(error))
        else:
            for key, array in copied.items():
                # Metadata carry no sum: what they call the same bytes may have changed.
                if file.name not in ("zarr.json", ".zarray", ".zattrs"):
                    np.testing.assert_array_equal(array, expected[key], str((file, i)))
        finally:
            file.write_bytes(raw)
    assert len(refusals) > 40
    assert "\n" not in "".join(refusals)
    read_all(path)


# ---------------------------------------------------------------------- what may run code


class Dangerous:
    def __reduce__(self):
        return os.mkdir, (os.environ["MARK"],)


@pytest.mark.parametrize("array", ["data/action", "data/unused", "meta/episode_ends"])
@pytest.mark.parametrize("filters", [["vlen-utf8", "pickle"], ["pickle"], ["msgpack2"], []])
def test_arrays_of_objects_are_not_opened(tmp_path, monkeypatch, array, filters):
    monkeypatch.setenv("MARK", str(tmp_path / "ran"))
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    path = of_others(tmp_path / "a.zarr", 2)
    shutil.rmtree(path / array, ignore_errors=True)
    (path / array).mkdir()
    metadata = {"shape": [15], "chunks": [15], "dtype": "|O", "fill_value": "", "order": "C"}
    metadata |= {"compressor": None, "filters": [{"id": name} for name in filters]}
    (path / array / ".zarray").write_text(json.dumps({"zarr_format": 2, **metadata}))
    (path / array / "0").write_bytes(pickle.dumps(Dangerous()))
    with pytest.raises(UserError, match=array):
        read_all(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_codec_that_is_not_installed_stops_only_who_needs_it(tmp_path, zarr_format):
    path = of_others(tmp_path / "a.zarr", zarr_format)
    file = path / "data/img" / (".zarray" if zarr_format == 2 else "zarr.json")
    metadata = json.loads(file.read_text())
    if zarr_format == 2:
        metadata["compressor"] = {"id": "imagecodecs_jpegxl", "level": 99}
    else:
        metadata["codecs"][-1] = {"name": "imagecodecs_jpegxl", "configuration": {}}
    file.write_text(json.dumps(metadata))
    buffer = ReplayBuffer.create_from_path(path)
    assert list(buffer.keys()) == ["action"]
    assert "img" in buffer
    assert ReplayBuffer.copy_from_path(path, keys=["action"]).n_steps == sum(LENGTHS)
    store = ZarrStore(path, tmp_path / "cache")
    store.prepare({"action": Field((2,))})
    for use in (
        lambda: buffer.read("img"),
        lambda: ReplayBuffer.copy_from_path(path),
        lambda: append(path),
        lambda: store.prepare({"img": Field((3, 4, 4), "rgb", "VISUAL")}),
    ):
        with pytest.raises(UserError, match=r"data/img .*imagecodecs_jpegxl.* install"):
            use()


# ---------------------------------------------------------------------- what leads elsewhere


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("../outside", {}, "outside the folder"),
        ("/etc/outside", {}, "outside the folder"),
        ("C:/outside", {}, "outside the folder"),
        ("a\\..\\outside", {}, "outside the folder"),
        ("data/link", {"external_attr": (stat.S_IFLNK | 0o777) << 16}, "holds a link"),
        ("meta/episode_ends/zarr.json", {}, "2 times"),
        ("data/secret", {"flag_bits": 1}, "needs a password"),
        ("data/large", {"file_size": 2**40}, "would grow"),
    ],
)
def test_a_zip_that_leads_elsewhere_is_refused(tmp_path, name, change, message):
    path = tmp_path / "a.zarr.zip"
    ReplayBuffer.create_from_path(ours(tmp_path / "a.zarr", 3)).save_to_path(path)
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo(name)
        archive.writestr(info, b"x")
        for attribute, value in change.items():  # as the directory at the end tells it
            setattr(info, attribute, value)
    with pytest.raises(UserError, match=message):
        ReplayBuffer.create_from_path(path)


def test_links_are_read_through_and_not_written_through(tmp_path):
    path = ours(tmp_path / "a.zarr", 3)
    (path / "data/img").rename(tmp_path / "scratch")
    (path / "data/img").symlink_to(tmp_path / "scratch")
    np.testing.assert_array_equal(ReplayBuffer.copy_from_path(path)["img"], recorded()["img"])
    for mode in ("r+", "a"):
        with pytest.raises(UserError, match=r"data/img is a link"):
            ReplayBuffer.create_from_path(path, mode=mode)


@pytest.mark.parametrize("place", ["data", "data/img/c", "data/img/c/4", "data/img/c/1/0"])
def test_no_folder_of_chunks_is_written_through_a_link(tmp_path, place):
    path = ours(tmp_path / "a.zarr", 3)
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(path / place, ignore_errors=True)
    (path / place).symlink_to(outside)
    with pytest.raises(UserError, match=f"{place} is a link"):
        ReplayBuffer.create_from_path(path, mode="r+")
    assert not list(outside.iterdir())


def test_images_behind_a_link_are_converted_again_when_they_change(tmp_path):
    path = ours(tmp_path / "a.zarr", 3)
    (path / "data/img").rename(tmp_path / "scratch")
    (path / "data/img").symlink_to(tmp_path / "scratch")

    def images() -> np.ndarray:
        store = ZarrStore(path, tmp_path / "cache")
        store.prepare({"img": Field((3, 4, 4), "rgb", "VISUAL")})
        return np.asarray(store.read("img", np.arange(sum(LENGTHS))))

    before = images()
    array = zarr.open_array(tmp_path / "scratch", mode="r+")
    array[...] = 255 - array[...]
    np.testing.assert_array_equal(images(), 255 - before)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_metadata_alone_do_not_ask_for_memory(tmp_path, zarr_format):
    path = of_others(tmp_path / "a.zarr", zarr_format)
    n = 10**9
    group = zarr.open_group(path, mode="r+")
    for key in ("data/action", "data/img"):
        group[key].resize((n, *group[key].shape[1:]))
    group["meta/episode_ends"][-1] = n
    buffer = ReplayBuffer.create_from_path(path)
    begun = time.process_time()
    with pytest.raises(UserError, match="data/action would fill 8000000000 bytes"):
        buffer.read("action")
    assert time.process_time() - begun < 10


# ---------------------------------------------------------------------- full disks


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """Larger files cannot be written, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def replace(path: Path) -> None:
    bigger = ReplayBuffer.create_empty_numpy()
    bigger.add_episode({"action": np.random.default_rng(1).normal(size=(9000, 2))})
    bigger.save_to_path(path, if_exists="replace")


def append_long(path: Path) -> None:
    long = "".join(map(chr, np.random.default_rng(0).integers(200, 9000, 4000)))
    texts = {"text": np.full(4, long)}
    ReplayBuffer.create_from_path(path, mode="r+").add_episode(recorded(4) | texts)


def rewrite(path: Path) -> None:
    ReplayBuffer.create_from_path(path, mode="r+").set_compressors({"action": None})


def add_meta(path: Path) -> None:
    values = np.random.default_rng(1).normal(size=9000)
    ReplayBuffer.create_from_path(path, mode="r+").update_meta({"initial_state": values})


@pytest.mark.filterwarnings("ignore:steps beyond")
@pytest.mark.parametrize(
    ("change", "n_bytes"), [(replace, 9000), (append_long, 5000), (rewrite, 20), (add_meta, 9000)]
)
def test_a_full_disk_is_told_and_leaves_what_was_there(
    tmp_path, change: Callable[[Path], None], n_bytes
):
    path = ours(tmp_path / "a.zarr", 3)
    with (
        files_of_at_most(n_bytes),
        pytest.raises(UserError, match=r"cannot write .*File too large"),
    ):
        change(path)
    assert list(tmp_path.iterdir()) == [path]
    copied = ReplayBuffer.copy_from_path(path)
    assert copied.episode_ends.tolist() == np.cumsum(LENGTHS).tolist()
    assert copied.meta["initial_state"].shape == (len(LENGTHS), 5)
    for key, values in recorded().items():
        np.testing.assert_array_equal(copied[key], values)
    assert not list(path.rglob("*.partial"))
