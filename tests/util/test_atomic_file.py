from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion_policy.util.atomic_file import put_back, replacing, set_aside_path
from diffusion_policy.util.errors import UserError

DYING_WRITER = """
import os, signal, sys
from pathlib import Path
from diffusion_policy.util.atomic_file import replacing
with replacing(sys.argv[1]) as partial:
    if sys.argv[2] == "folder":
        partial.mkdir()
        partial /= "inside"
    partial.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def die_writing(path: Path, kind: str) -> None:
    command = [sys.executable, "-c", DYING_WRITER, str(path), kind]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path, kind):
    # Brackets and a star mean something else in a glob pattern.
    path = tmp_path / "epoch=[0]*.ckpt"
    path.write_bytes(b"old")
    die_writing(path, kind)
    assert len(list(tmp_path.iterdir())) == 2
    assert path.read_bytes() == b"old"
    with replacing(path) as partial:
        partial.write_bytes(b"new")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"new"


def test_only_abandoned_temporaries_of_the_same_target_go(tmp_path):
    die_writing(tmp_path / "other.ckpt", "file")
    with replacing(tmp_path / "a.ckpt") as ours:
        ours.write_bytes(b"ours")
        # The parent process lives as long as this test.
        living = ours.with_name(ours.name.replace(str(os.getpid()), str(os.getppid())))
        living.write_bytes(b"being written")
        abandoned_elsewhere = set(tmp_path.glob(".other.*"))
        assert len(abandoned_elsewhere) == 1
    with replacing(tmp_path / "a.ckpt") as ours:
        ours.write_bytes(b"ours again")
    assert set(tmp_path.iterdir()) == {tmp_path / "a.ckpt", living, *abandoned_elsewhere}


def write_half(path: Path) -> None:
    with replacing(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt


def test_an_interrupted_block_leaves_the_old_contents(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_half(path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_a_folder_takes_the_place_of_a_folder(tmp_path):
    path = tmp_path / "data.zarr"
    for content in ["old", "new"]:
        with replacing(path) as partial:
            partial.mkdir()
            (partial / content).touch()
    assert [p.name for p in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def half_replaced(tmp_path) -> Path:
    """A folder that was set aside, and whose successor has not taken its place."""
    path = tmp_path / "data.zarr"
    set_aside_path(path).mkdir()
    (set_aside_path(path) / "old").touch()
    return path


def test_a_folder_whose_replacement_died_gets_its_name_back(half_replaced):
    put_back(half_replaced)
    assert [p.name for p in half_replaced.iterdir()] == ["old"]
    put_back(half_replaced)  # nothing is left to do
    assert list(half_replaced.parent.iterdir()) == [half_replaced]


def test_a_replacement_that_may_go_on_is_left_alone(half_replaced):
    with replacing(half_replaced.with_name("other.zarr")) as temporary:
        temporary.mkdir()
    (half_replaced.parent / "other.zarr").rmdir()
    name = temporary.name.replace("other", "data")
    for living in (name, name.replace(str(os.getpid()), "elsewhere.1")):
        (half_replaced.parent / living).mkdir()
        with pytest.raises(UserError, match=r"rename .*\.data\.zarr\.old to data\.zarr"):
            put_back(half_replaced)
        (half_replaced.parent / living).rmdir()
    put_back(half_replaced)
    assert half_replaced.is_dir()


def test_the_next_write_starts_from_what_was_put_back(half_replaced):
    with pytest.raises(KeyboardInterrupt):
        write_half(half_replaced)
    assert [p.name for p in half_replaced.iterdir()] == ["old"]
