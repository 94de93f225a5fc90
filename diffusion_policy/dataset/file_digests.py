"""Digests of large files, remembered as long as the files do not change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from diffusion_policy.util.atomic_file import replacing
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.threads import run_in_threads

_MEMORY = "digests.json"


def file_digests(paths: Sequence[Path], cache_dir: Path) -> list[str]:
    """SHA-256 of each file's content, in hex digits.

    A file is read again only if its size, time of change or place has changed since
    ``cache_dir`` remembered its digest.

    Raises:
        UserError: a file cannot be read.
    """
    remembered = _read(cache_dir / _MEMORY)
    states = [_state(path) for path in paths]
    fresh: dict[str, str] = {}

    def digest(path: Path, state: str) -> None:
        with path.open("rb") as file:
            fresh[state] = hashlib.file_digest(file, "sha256").hexdigest()

    unknown = {s: p for p, s in zip(paths, states, strict=True) if s not in remembered}
    run_in_threads(lambda entry: digest(entry[1], entry[0]), unknown.items())
    if fresh:
        remembered = {**_read(cache_dir / _MEMORY), **fresh}
        with suppress(OSError), replacing(cache_dir / _MEMORY) as partial:
            partial.write_text(json.dumps(remembered))
    return [remembered[state] for state in states]


def _state(path: Path) -> str:
    """What tells that a file is still the same one."""
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(
            f"{path} is missing or unreadable ({error.strerror}): fetch the data set again"
        ) from error
    return f"{path.resolve()} {found.st_ino} {found.st_size} {found.st_mtime_ns}"


def _read(path: Path) -> dict[str, str]:
    with suppress(OSError, ValueError):
        content = json.loads(path.read_bytes())
        if isinstance(content, dict) and all(isinstance(v, str) for v in content.values()):
            return content
    return {}
