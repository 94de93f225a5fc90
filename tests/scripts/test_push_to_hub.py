"""What is sent to the hub is whole, and its card holds the numbers."""

from __future__ import annotations

import base64
import json
import shutil
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
import yaml
from huggingface_hub import constants

from diffusion_policy.checkpoint.policy_folder import save_policy_folder
from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.scripts.push_to_hub import main
from tests.dataset.stores.lerobot.golden import GOLDEN, golden_copy
from tests.dataset.test_convert import recorded_zarr

RECORD = Path(__file__).parents[2] / "docs/results/dot_pusht_human_seed42"


class _Hub(ThreadingHTTPServer):
    """As much of the hub as takes a commit: what it got, by repository and path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.created: list[dict] = []
        self.tags: list[str] = []
        self.refuse: int | None = None


class _Handler(BaseHTTPRequestHandler):
    server: _Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self._body()
        path = self.path.partition("?")[0]
        if self.server.refuse is not None:
            self._send(self.server.refuse, {"error": "no"})
        elif path == "/api/repos/create":
            told = json.loads(body)
            self.server.created.append(told)
            self._send(200, {"url": f"http://127.0.0.1/{told['organization']}/{told['name']}"})
        elif path == "/api/validate-yaml":
            self._send(200, {"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            self._send(200, {"files": files})
        elif "/commit/" in path:
            repo = path.removeprefix("/api/").partition("/commit/")[0]
            held = self.server.repos.setdefault(repo, {})
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    held[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._send(200, {"commitUrl": f"http://127.0.0.1/{repo}/commit/1", "commitOid": "1"})
        elif "/tag/" in path:
            self.server.tags.append(json.loads(body)["tag"])
            self._send(200, {})
        else:
            self._send(404, {"error": path})

    def do_DELETE(self) -> None:
        self._body()
        self._send(404, {"error": "no tag"}, {"X-Error-Code": "RevisionNotFound"})

    def do_GET(self) -> None:
        self._send(404, {"error": self.path})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, code: int, content: dict, headers: dict[str, str] | None = None) -> None:
        encoded = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(encoded)


@pytest.fixture
def hub(monkeypatch):
    with _Hub() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
        yield server
        server.shutdown()


def front_matter(card: str) -> tuple[dict, str]:
    _, head, text = card.split("---\n", 2)
    return yaml.safe_load(head), text


def test_a_data_set_is_sent_with_its_card_and_tag(hub, tmp_path, capsys):
    path = golden_copy("v30", tmp_path)
    (path / "README.md").write_text("---\nlicense: mit\n---\nBy hand.")
    (path / ".lock").write_text("1")
    main([str(path), "me/blocks", "--private"])
    held = hub.repos["datasets/me/blocks"]
    files = {p.relative_to(path).as_posix(): p for p in path.rglob("*") if p.is_file()}
    assert held.keys() == files.keys() - {".lock"}
    for name in held.keys() - {"README.md"}:
        assert held[name] == files[name].read_bytes()
    (created,) = hub.created
    assert (created["organization"], created["name"]) == ("me", "blocks")
    assert created["type"] == "dataset"
    # Earlier versions of the library call it otherwise.
    assert created.get("visibility") == "private" or created.get("private") is True
    assert hub.tags == ["v3.0"]
    head, text = front_matter(held["README.md"].decode())
    assert "LeRobot" in head["tags"]
    for told in (
        "# blocks",
        "| format | lerobot-v3.0 |",
        "| episodes | 3 |",
        "| steps | 36 (9 to 15 an episode) |",
        "| steps per second | 10 |",
        "| robot | so101_follower |",
        "| `observation.images.front` | rgb | 3x48x64 |  |",
        "shoulder_pan.pos, shoulder_lift.pos",
        "- Put the red cube in the box.",
        "By hand.",
    ):
        assert told in text
    assert "sent 8 files" in capsys.readouterr().out


def test_other_formats_are_sent_without_a_tag(hub, tmp_path):
    path = recorded_zarr(tmp_path / "a.zarr", lengths=(2,))
    main([str(path), "me/zarr", "--cache-dir", str(tmp_path / "cache")])
    held = hub.repos["datasets/me/zarr"]
    assert held["zarr.json"] == (path / "zarr.json").read_bytes()
    assert b"| format | zarr |" in held["README.md"]
    assert hub.tags == []


def test_a_zarr_group_of_format_2_is_sent_with_its_metadata(hub, tmp_path):
    path = tmp_path / "a.zarr"
    ReplayBuffer.create_from_path(recorded_zarr(tmp_path / "b.zarr", lengths=(2,))).save_to_path(
        path, zarr_format=2
    )
    (path / ".secret").write_text("mine")
    main([str(path), "me/zarr", "--cache-dir", str(tmp_path / "cache")])
    held = hub.repos["datasets/me/zarr"]
    files = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    assert held.keys() == {*files, "README.md"} - {".secret"}
    assert "data/action/.zarray" in held


def policy_folder(folder: Path) -> Path:
    config = (RECORD / "config.yaml").read_text()
    save_policy_folder(folder, config, {"weight": torch.zeros(3)})
    return folder


def test_a_policy_is_sent_with_its_scores(hub, tmp_path):
    main([str(policy_folder(tmp_path / "dot")), "me/dot", "--record", str(RECORD)])
    held = hub.repos["models/me/dot"]
    assert held.keys() == {"README.md", "config.yaml", "model.safetensors"}
    assert held["model.safetensors"] == (tmp_path / "dot/model.safetensors").read_bytes()
    head, text = front_matter(held["README.md"].decode())
    aggregated = json.loads((RECORD / "eval_info.json").read_text())["aggregated"]
    (model,) = head["model-index"]
    scores = {m["type"]: m["value"] for r in model["results"] for m in r["metrics"]}
    assert scores["success_rate"] == aggregated["success_rate"]
    assert scores["mean_max_reward"] == aggregated["mean_max_reward"]
    assert "| policy | DOTPolicy |" in text
    assert "| score | **88.2 % (" in text
    assert "python eval.py --checkpoint data/pretrained/dot" in text


def test_a_dry_run_sends_nothing(hub, tmp_path, capsys):
    main([str(policy_folder(tmp_path / "dot")), "me/dot", "--dry-run"])
    printed = capsys.readouterr().out
    assert "library_name: diffusion_policy" in printed
    assert "model-index" not in printed
    assert "  model.safetensors" in printed
    assert "would send 3 files" in printed
    assert not hub.created


def test_what_cannot_be_sent_is_told_in_one_line(hub, tmp_path, capsys):
    path = golden_copy("v30", tmp_path)

    def error_of(*arguments: object) -> str:
        with pytest.raises(SystemExit):
            main([*map(str, arguments)])
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        return error

    assert "write owner/name" in error_of(path, "blocks")
    assert "does not exist" in error_of(tmp_path / "none", "me/blocks")
    assert "leave it out for a data set" in error_of(path, "me/blocks", "--record", RECORD)
    hub.refuse = 403
    assert "log in with hf auth login" in error_of(path, "me/blocks")
    hub.refuse = 400
    assert "the hub refuses me/blocks (400" in error_of(path, "me/blocks")
    hub.refuse = None
    (path / "secret").symlink_to("/etc/hostname")
    assert "is a link" in error_of(path, "me/blocks")
    (path / "secret").unlink()
    shutil.copy(GOLDEN / "v30/meta/info.json", tmp_path / "dot.json")
    folder = policy_folder(tmp_path / "dot")
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert "model.safetensors" in error_of(folder, "me/dot")
    assert not hub.repos


def test_without_network_it_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    with pytest.raises(SystemExit):
        main([str(golden_copy("v30", tmp_path)), "me/blocks"])
    assert "check the network and repeat" in capsys.readouterr().err
