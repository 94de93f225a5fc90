from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from diffusion_policy.gym_util.video_writer import VideoWriter
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.output_dir import OutputLock, is_held, write_atomically
from tests.processes import started

HOLD = """
import sys, time
from pathlib import Path
from diffusion_policy.util.output_dir import OutputLock
with OutputLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_excludes_others_and_ends_with_its_process(tmp_path):
    hold = [sys.executable, "-c", HOLD, str(tmp_path)]
    with started(hold, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        in_use = pytest.raises(UserError, match=f"in use by process {holder.pid}")
        with in_use, OutputLock(tmp_path):
            pass
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    with OutputLock(tmp_path):
        pass


def test_a_glance_at_the_lock_does_not_keep_a_run_from_starting(tmp_path):
    (tmp_path / ".lock").touch()
    with (tmp_path / ".lock").open() as glance:
        fcntl.flock(glance, fcntl.LOCK_SH)
        threading.Timer(0.01, fcntl.flock, (glance, fcntl.LOCK_UN)).start()
        with OutputLock(tmp_path):
            assert is_held(tmp_path)


def test_nobody_holds_a_directory_without_a_lock(tmp_path):
    assert not is_held(tmp_path / "none")


def test_a_file_system_without_locks_is_not_called_in_use(tmp_path, monkeypatch):
    # No file system here lacks locks, so the call fails like on one that does.
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=r"cannot lock .*\.lock: No locks available"):
        OutputLock(tmp_path).__enter__()


def test_a_directory_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/run/\.lock: Not a directory; free"):
        OutputLock(tmp_path / "file" / "run").__enter__()


def test_real_full_disk_keeps_the_previous_file(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs privileges")
    try:
        path = tmp_path / "file"
        write_atomically(path, b"old" * 1000)
        with pytest.raises(UserError, match="No space left on device; the previous one is kept"):
            write_atomically(path, b"new" * 100_000)
        assert path.read_bytes() == b"old" * 1000
        assert len(list(tmp_path.iterdir())) == 1
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_no_file_is_written_through_a_link(tmp_path):
    """A run folder from somebody else may hold links."""
    precious = tmp_path / "precious.txt"
    precious.write_text("precious")
    run = tmp_path / "run"
    run.mkdir()
    for name in (".lock", "logs.json.txt", "a.mp4", "a.mp4.partial"):
        (run / name).symlink_to(precious)
    with pytest.raises(UserError, match=r"cannot write .*\.lock"), OutputLock(run):
        pass
    write_atomically(run / "logs.json.txt", b"{}\n")
    with VideoWriter(run / "a.mp4") as video:
        video.write(np.zeros((16, 16, 3), np.uint8))
    assert precious.read_text() == "precious"
    assert not (run / "a.mp4").is_symlink()
