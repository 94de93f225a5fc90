"""Send data sets and policy folders to the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusion_policy.util.errors import UserError, one_line
from diffusion_policy.util.hub import Kind, is_hub_id

CARD = "README.md"
_ZARR_2 = {".zgroup", ".zarray", ".zattrs", ".zmetadata"}
"""Hidden files without which a zarr group of format 2 is only chunks."""


@dataclass(frozen=True)
class Upload:
    """What is sent.

    Attributes:
        path: a file, or a folder of which all files are sent but hidden ones and its README.
        kind: of the repository.
        card: text of its README.
        tag: that shall name this state, such as ``v3.0``; readers of LeRobot ask for it.
    """

    path: Path
    kind: Kind
    card: str
    tag: str | None = None

    def files(self) -> list[Path]:
        """The files, without the card.

        Raises:
            UserError: one of them is a link, which could lead to anything on this machine.
        """
        if self.path.is_file():
            return [self.path]
        found = []
        for path in sorted(self.path.rglob("*")):
            name = path.relative_to(self.path)
            hidden = any(part.startswith(".") and part not in _ZARR_2 for part in name.parts)
            if hidden or str(name) == CARD:
                continue
            if path.is_symlink():
                raise UserError(f"{path} is a link: replace it by the file that is meant")
            if path.is_file():
                found.append(path)
        return found

    def name_of(self, file: Path) -> str:
        """The name of a file in the repository."""
        return file.name if self.path.is_file() else file.relative_to(self.path).as_posix()


def require_repo_id(repo_id: str) -> None:
    """Check the name of a repository.

    Raises:
        UserError: it is none.
    """
    if not is_hub_id(repo_id):
        raise UserError(f"{repo_id!r} is no name of a repository; write owner/name")


def push(upload: Upload, repo_id: str, *, private: bool) -> str:
    """Send all files in one commit, so that the repository never holds half of them.

    The repository is made if it does not exist; files that it already holds are not sent again.

    Returns:
        The address of the repository.

    Raises:
        UserError: the hub is out of reach, or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, errors

    operations: list[Any] = [
        CommitOperationAdd(upload.name_of(path), str(path)) for path in upload.files()
    ]
    operations.append(CommitOperationAdd(CARD, upload.card.encode()))
    api = HfApi()
    where: dict[str, Any] = {"repo_id": repo_id, "repo_type": upload.kind}
    try:
        url = api.create_repo(**where, private=private, exist_ok=True)
        api.create_commit(
            **where, operations=operations, commit_message=f"Upload {upload.path.name}"
        )
        if upload.tag is not None:
            with suppress(errors.RevisionNotFoundError):  # else it would stay where it was
                api.delete_tag(**where, tag=upload.tag)
            api.create_tag(**where, tag=upload.tag)
    except errors.LocalTokenNotFoundError as error:
        raise UserError(_log_in(repo_id)) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise UserError(_log_in(repo_id)) from error
        raise UserError(
            f"the hub refuses {repo_id} ({status}, {one_line(error)[:200]}); correct it and repeat "
            "the command"
        ) from error
    except Exception as error:  # of whichever library sends
        raise UserError(
            f"{repo_id} cannot be sent to the hub ({one_line(error)[:200]}): check the network and "
            "repeat the command"
        ) from error
    return str(url)


def _log_in(repo_id: str) -> str:
    return (
        f"you may not write to {repo_id} on the hub; log in with hf auth login, with a token that "
        "may write, or choose an owner that you belong to"
    )


def listing(upload: Upload) -> Sequence[tuple[str, int]]:
    """Name and bytes of each file that would be sent, the card included."""
    files = [(upload.name_of(path), path.stat().st_size) for path in upload.files()]
    return [*files, (CARD, len(upload.card.encode()))]
