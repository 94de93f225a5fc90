"""A server that speaks as much of the Hugging Face hub as reading a repository needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote


class HubServer(ThreadingHTTPServer):
    """Serves folders.

    Attributes:
        repos: folder by kind, name and revision, as ``datasets/owner/name@v3.0``.
        served: paths of the files that were sent.
        limit: bytes after which a file is cut; None sends all.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Path] = {}
        self.served: list[str] = []
        self.limit: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving() -> Iterator[HubServer]:
    with HubServer() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self, body: bool) -> None:
        path = unquote(self.path.partition("?")[0])
        parts = path.strip("/").split("/")
        if parts[0] == "api":  # /api/datasets/owner/name/revision/v3.0, .../tree/sha
            repo, (what, revision, *_) = "/".join(parts[1:4]), [*parts[4:], "info", "main"]
            self._send_api(repo, what, revision)
        else:  # /datasets/owner/name/resolve/revision/file
            repo, revision, file = "/".join(parts[:3]), parts[4], "/".join(parts[5:])
            self._send_file(repo, revision, file, body)

    def _send_api(self, repo: str, what: str, revision: str) -> None:
        names = [name for name in self.server.repos if name.partition("@")[0] == repo]
        if not names:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        folder = self._folder(repo, revision)
        if folder is None:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        names = [str(p.relative_to(folder)) for p in files]
        if what == "tree":
            content: object = [
                {"type": "file", "path": n, "size": p.stat().st_size, "oid": _digest(p)[:40]}
                for n, p in zip(names, files, strict=True)
            ]
        else:
            siblings = [{"rfilename": name} for name in names]
            content = {
                **{"id": repo.partition("/")[2], "sha": _sha(revision), "siblings": siblings},
                **{"private": False, "gated": False, "disabled": False, "tags": []},
                **{"downloads": 0, "likes": 0},
            }
        self._send(200, json.dumps(content).encode())

    def _send_file(self, repo: str, revision: str, file: str, body: bool) -> None:
        folder = self._folder(repo, revision)
        if folder is None or not (folder / file).is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        content = (folder / file).read_bytes()
        headers = {
            "ETag": f'"{_digest(folder / file)[:40]}"',
            "X-Repo-Commit": revision,
            "Accept-Ranges": "bytes",
        }
        start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if body:
            self.server.served.append(f"{file}@{start}")
        self._send(206 if start else 200, content[start:], headers, body)

    def _folder(self, repo: str, revision: str) -> Path | None:
        for name, folder in self.server.repos.items():
            known, _, tag = name.partition("@")
            if known == repo and revision in (tag, _sha(tag)):
                return folder
        return None

    def _send(
        self, code: int, content: bytes, headers: dict[str, str] | None = None, body: bool = True
    ) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        limit = self.server.limit
        if body and limit is not None and len(content) > limit:
            self.wfile.write(content[:limit])
            self.close_connection = True
        elif body and self.command != "HEAD":
            self.wfile.write(content)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sha(revision: str) -> str:
    """A commit of that tag; commits stand for themselves."""
    return hashlib.sha1(revision.encode()).hexdigest()
