from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion_policy.util.hub import is_hub_id
from tests.dataset.stores.lerobot.golden import GOLDEN
from tests.util.hub_server import HubServer, serving

OPEN = """
import sys
from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.util.errors import reports_user_errors

@reports_user_errors
def main():
    store = open_store(sys.argv[1], sys.argv[2] + "/cache")
    print(store.metadata.version, store.n_steps, store.read("action", store.episode_ends[:1]).shape)

main()
"""


@pytest.fixture
def server():
    with serving() as found:
        yield found


def open_named(name: str, folder: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    """The library reads its settings when it is imported, so every use has its own process."""
    env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hub")}
    env |= {"HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", OPEN, name, str(folder)]
    return subprocess.run(command, env=env, text=True, capture_output=True, timeout=120)


def publish(server: HubServer) -> None:
    server.repos["datasets/someone/arm@v3.0"] = GOLDEN / "v30"
    server.repos["datasets/someone/arm@v2.1"] = GOLDEN / "v21"
    server.repos["datasets/someone/arm@main"] = GOLDEN / "v30"


@pytest.mark.slow
def test_a_data_set_is_fetched_once_and_used_without_network(server, tmp_path):
    pytest.importorskip("pyarrow")
    publish(server)
    first = open_named("someone/arm", tmp_path, server.url)
    assert first.stdout.endswith("v3.0 36 (1, 6)\n"), first.stderr
    n_files = len([p for p in (GOLDEN / "v30").rglob("*") if p.is_file()])
    assert len(server.served) == n_files
    again = open_named("someone/arm", tmp_path, server.url)
    assert again.stdout.endswith("v3.0 36 (1, 6)\n")
    assert len(server.served) == n_files  # from the cache
    offline = open_named("someone/arm", tmp_path, "http://127.0.0.1:9")
    assert offline.stdout.endswith("v3.0 36 (1, 6)\n"), offline.stderr


@pytest.mark.slow
def test_the_newest_version_that_can_be_read_is_chosen(server, tmp_path):
    pytest.importorskip("pyarrow")
    server.repos["datasets/someone/arm@v2.1"] = GOLDEN / "v21"
    server.repos["datasets/someone/arm@main"] = tmp_path  # of a later version
    found = open_named("someone/arm", tmp_path, server.url)
    assert found.stdout.endswith("v2.1 36 (1, 6)\n"), found.stderr


@pytest.mark.slow
def test_what_cannot_be_fetched_is_told_in_one_line(server, tmp_path):
    publish(server)
    missing = open_named("someone/leg", tmp_path, server.url)
    assert missing.returncode == 1
    assert "no file or folder someone/leg, and no dataset of that name" in missing.stderr
    unreachable = open_named("someone/arm", tmp_path, "http://127.0.0.1:9")
    assert unreachable.returncode == 1
    assert "the hub cannot be reached" in unreachable.stderr
    assert len(unreachable.stderr.splitlines()) == 1


@pytest.mark.slow
def test_an_interrupted_download_goes_on(server, tmp_path):
    pytest.importorskip("pyarrow")
    publish(server)
    server.limit = 3000  # bytes of a file, then the connection breaks
    cut = open_named("someone/arm", tmp_path, server.url)
    assert cut.returncode == 1
    assert "repeat the command" in cut.stderr
    server.limit = None
    whole = open_named("someone/arm", tmp_path, server.url)
    assert whole.stdout.endswith("v3.0 36 (1, 6)\n"), whole.stderr


def test_names_of_the_hub_are_told_from_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/arm").mkdir(parents=True)
    names = ["lerobot/pusht_keypoints", "data/arm", "data/arm.zarr", "/a/b", "a/b/c", "a", "../a"]
    assert [is_hub_id(name) for name in names] == [True, *[False] * 6]
    assert not is_hub_id("https://a/b")
