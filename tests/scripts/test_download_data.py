"""The download survives cuts and kills, and never accepts other data as the data set."""

from __future__ import annotations

import contextlib
import http.server
import re
import shutil
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.scripts import download_data
from diffusion_policy.util.download import download
from diffusion_policy.util.errors import UserError

PUSHT = download_data.DATA["pusht"]


class Server(http.server.ThreadingHTTPServer):
    """Serve ``content`` at every path; close the connection after ``cut_after`` bytes."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.knows_ranges = True
        self.cut_after: int | None = None
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/mirror/file.zip"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.ranges.append(wanted)
        if "missing" in self.path:
            self.send_error(404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        if not server.knows_ranges:
            start = 0
        total = len(server.content)
        if start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(total - start))
        self.end_headers()
        self.wfile.write(server.content[start:][: server.cut_after])

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> bytes:
    """Make an archive with PushT's name, shape and number of steps and a folder at its top."""
    folder = tmp_path_factory.mktemp("archive")
    buffer = ReplayBuffer.create_empty_numpy()
    lengths = np.full(PUSHT.n_episodes, PUSHT.n_steps // PUSHT.n_episodes)
    lengths[-1] += PUSHT.n_steps - lengths.sum()
    buffer.add_episode({"action": np.arange(PUSHT.n_steps, dtype=np.float32)[:, None]})
    buffer = ReplayBuffer({"data": dict(buffer.data), "meta": {"episode_ends": np.cumsum(lengths)}})
    buffer.save_to_path(folder / "top" / PUSHT.folder, zarr_format=2)
    return Path(shutil.make_archive(folder / "packed", "zip", folder / "top")).read_bytes()


@pytest.fixture
def server(archive):
    with Server(archive) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def fetch(output: Path, *more: str) -> None:
    download_data.main(["pusht", "--output", str(output), *more])


def test_the_data_set_is_fetched_checked_and_unpacked_once(tmp_path, server, capsys):
    fetch(tmp_path, "--url", server.url)
    buffer = ReplayBuffer.copy_from_path(tmp_path / "pusht" / "pusht_cchi_v7_replay.zarr")
    assert (buffer.n_episodes, buffer.n_steps) == (206, 25_650)
    np.testing.assert_array_equal(buffer["action"][:, 0], np.arange(25_650))
    assert "sha256" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["pusht"]
    assert [p.name for p in (tmp_path / "pusht").iterdir()] == ["pusht_cchi_v7_replay.zarr"]
    fetch(tmp_path, "--url", server.url)
    assert len(server.ranges) == 1


def test_a_cut_connection_is_resumed(tmp_path, server):
    server.cut_after = len(server.content) // 3
    fetch(tmp_path, "--url", server.url)
    third = server.cut_after
    assert server.ranges[:3] == [None, f"bytes={third}-", f"bytes={2 * third}-"]


def test_a_later_call_goes_on_where_an_earlier_one_stopped(tmp_path, server):
    path = tmp_path / "a.zip"
    (tmp_path / "a.zip.part").write_bytes(server.content[:1000])
    download(server.url, path)
    assert server.ranges == ["bytes=1000-"]
    assert path.read_bytes() == server.content
    assert list(tmp_path.iterdir()) == [path]


def test_a_complete_or_overlong_part_is_recognised(tmp_path, server):
    for i, extra in enumerate([b"", b"more"]):
        path = tmp_path / f"{i}.zip"
        path.with_name(f"{i}.zip.part").write_bytes(server.content + extra)
        download(server.url, path)
        assert path.read_bytes() == server.content
    assert server.ranges[-1] is None


def test_a_server_without_ranges_starts_over_and_gives_up_when_always_cut(tmp_path, server):
    server.knows_ranges = False
    path = tmp_path / "a.zip"
    (tmp_path / "a.zip.part").write_bytes(b"x" * 1000)
    download(server.url, path)
    assert path.read_bytes() == server.content
    server.cut_after = 1000
    with pytest.raises(UserError, match=r"connection was cut\): .* resumes the download"):
        download(server.url, tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()


def test_no_server_says_what_to_do_by_hand(tmp_path, server, capsys):
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(SystemExit) as caught:
        fetch(tmp_path, "--url", url)
    assert caught.value.code == 1
    message = capsys.readouterr().err.strip()
    assert message.startswith(f"error: cannot download {url} (")
    assert f"by hand to {tmp_path / 'pusht.zip'} and repeat the command" in message
    assert "\n" not in message


def test_an_archive_put_there_by_hand_is_unpacked(tmp_path, server, archive):
    (tmp_path / "pusht.zip").write_bytes(archive)
    fetch(tmp_path, "--url", server.url)
    assert ReplayBuffer.create_from_path(tmp_path / PUSHT.folder).n_episodes == 206
    assert server.ranges == []


def test_a_missing_address_is_named(tmp_path, server):
    with pytest.raises(UserError, match="the server answers 404"):
        download(server.url.replace("file", "missing"), tmp_path / "a.zip")


def test_damaged_or_other_data_does_not_get_the_name(tmp_path, archive):
    flipped = bytearray(archive)
    flipped[archive.index(b"data/action/0.0") + 200] ^= 0xFF
    other = ReplayBuffer.create_empty_numpy()
    other.add_episode({"action": np.zeros((3, 2))})
    other.save_to_path(tmp_path / "other.zip")
    for content, message in [
        (bytes(flipped), "is damaged"),
        (archive[:-100], "is damaged"),
        ((tmp_path / "other.zip").read_bytes(), "holds 1 episodes with 3 steps in total, not 206"),
    ]:
        (tmp_path / "pusht.zip").write_bytes(content)
        with pytest.raises(UserError, match=message):
            download_data.fetch(PUSHT, tmp_path)
        assert list((tmp_path / "pusht").iterdir()) == []


def test_the_sum_printed_once_is_compared_later(tmp_path, server, capsys):
    def run(folder: str, *more: str) -> str:
        with contextlib.suppress(SystemExit):
            fetch(tmp_path / folder, "--url", server.url, *more)
        printed = capsys.readouterr()
        return printed.out + printed.err

    known = re.search(r"sha256 of .*: ([0-9a-f]{64})", run("first"))[1]
    run("same", "--sha256", known.upper())
    assert (tmp_path / "same" / PUSHT.folder).exists()
    assert f"has sha256 {known}, not 000" in run("other", "--sha256", "0" * 64)
    assert not (tmp_path / "other" / "pusht").exists()
    assert "exists already" in run("first", "--sha256", known)
    assert "'abc' is not 64 hexadecimal digits" in run("other", "--sha256", "abc")


def test_paths_that_leave_the_folder_are_refused(tmp_path, archive):
    path = tmp_path / "pusht.zip"
    path.write_bytes(archive)
    with zipfile.ZipFile(path, "a") as source:
        source.writestr(f"{PUSHT.folder}/../../../evil", "x")
    with pytest.raises(UserError, match="outside the folder"):
        download_data.fetch(PUSHT, tmp_path)
    assert not list(tmp_path.rglob("evil"))
