"""Download a file over HTTP and resume where an earlier attempt stopped."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from tqdm import tqdm

from diffusion_policy.util.errors import UserError

_TIMEOUT_S = 30.0  # without a single byte


def download(url: str, path: Path) -> None:
    """Download ``url`` to ``path``, which appears only when it is complete.

    An incomplete download is kept at ``path`` plus ``.part``, and a later call resumes it. After a
    broken connection the download is retried as long as each attempt receives more bytes.

    Raises:
        UserError: the server refuses, or an attempt receives nothing; names the remedy.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    complete = False
    while not complete:
        before = _size(part)
        reason: object = "the connection was cut"
        try:
            complete = _fetch(url, part)
        except urllib.error.HTTPError as error:
            raise UserError(
                _failed(url, f"the server answers {error.code} {error.reason}", path)
            ) from error
        except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as error:
            reason = getattr(error, "reason", error)
        if not complete and _size(part) <= before:
            raise UserError(_failed(url, reason, path))
    part.replace(path)


def _fetch(url: str, part: Path) -> bool:
    """Try once to append the missing bytes to ``part``; return whether it is complete."""
    start = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return True  # an earlier attempt stopped between the last byte and the rename
        part.unlink()  # longer than the file on the server, so it is a different file
        return _fetch(url, part)
    with response:
        resumed = response.status == HTTPStatus.PARTIAL_CONTENT
        start = start if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm.wrapattr(
                file,
                "write",
                desc=part.stem,
                total=total,
                initial=start,
                unit_divisor=1024,
                disable=None,
            ) as counted,
        ):
            shutil.copyfileobj(response, counted)
    return total is None or _size(part) == total


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _failed(url: str, reason: object, path: Path) -> str:
    return (
        f"cannot download {url} ({reason}): check the network and repeat the command, which "
        f"resumes the download, or download the file by hand to {path} and repeat the command"
    )
