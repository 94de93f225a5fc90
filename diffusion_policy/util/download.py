"""Fetch a file over HTTP, going on where an earlier attempt stopped."""

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
    """Fetch ``url`` to ``path``, which appears when it is complete.

    What has come so far lies at ``path`` with ``.part`` added. A connection that breaks is opened
    again for as long as each attempt brings more; so does a later call.

    Raises:
        UserError: the address refuses, or an attempt brings nothing; says how to go on.
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
                _failed(url, f"it answers {error.code} {error.reason}", path)
            ) from error
        except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as error:
            reason = getattr(error, "reason", error)
        if not complete and _size(part) <= before:
            raise UserError(_failed(url, reason, path))
    part.replace(path)


def _fetch(url: str, part: Path) -> bool:
    """One attempt to append to ``part`` what is missing; whether it is complete then."""
    start = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response: HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return True  # stopped after the last byte, before the rename
        part.unlink()  # longer than the file: it is another one
        return _fetch(url, part)
    with response:
        resumed = response.status == HTTPStatus.PARTIAL_CONTENT
        start = start if resumed else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm.wrapattr(
                file, "write", desc=part.stem, total=total, initial=start, unit_divisor=1024
            ) as counted,
        ):
            shutil.copyfileobj(response, counted)
    return total is None or _size(part) == total


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _failed(url: str, reason: object, path: Path) -> str:
    return (
        f"cannot fetch {url} ({reason}): check the network and repeat the command, which goes on "
        f"where it stopped, or download the file by hand to {path} and repeat it"
    )
