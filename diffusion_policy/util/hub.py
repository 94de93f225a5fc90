"""Fetch data sets and policy folders from the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from diffusion_policy.util.errors import UserError, one_line

Kind = Literal["dataset", "model"]

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_FILE = re.compile(r".*\.(zarr|zip|hdf5|h5|parquet|yaml|ckpt)")


def is_hub_id(path: str | Path) -> bool:
    """Whether this can only be the name of a repository, ``owner/name``: no such path exists."""
    text = str(path)
    return bool(_ID.fullmatch(text)) and not _FILE.fullmatch(text) and not Path(path).exists()


def pull(repo_id: str, kind: Kind, revisions: Sequence[str] = ()) -> Path:
    """The folder of a repository's files, fetched as far as they are not in the hub's cache.

    An interrupted download goes on where it stopped. Without network, what was fetched before is
    used.

    Args:
        revisions: tags, of which the first that exists is taken; the newest state if none does.

    Raises:
        UserError: there is no such repository, it is not open to this user, or it is neither
            within reach nor whole in the cache.
    """
    from huggingface_hub import errors, snapshot_download

    unreachable: Exception | None = None
    for revision in (*revisions, None):
        try:
            folder = snapshot_download(
                repo_id,
                repo_type=kind,
                revision=revision,
                local_files_only=unreachable is not None,
            )
        except errors.RevisionNotFoundError:
            continue
        except errors.LocalEntryNotFoundError as error:
            unreachable = unreachable or error  # another revision may be in the cache
        except errors.GatedRepoError as error:
            raise UserError(
                f"the {kind} {repo_id} asks for your consent: give it on its page of the hub, then "
                "log in with hf auth login"
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise UserError(
                f"there is no file or folder {repo_id}, and no {kind} of that name on the hub that "
                "you may read; correct the name, or log in with hf auth login"
            ) from error
        except Exception as error:  # of the disk, or of whichever library fetches
            raise UserError(
                f"the {kind} {repo_id} cannot be fetched from the hub ({one_line(error)}): repeat "
                "the command, which goes on where it stopped"
            ) from error
        else:
            return Path(folder)
    raise UserError(
        f"there is no file or folder {repo_id}, the hub cannot be reached, and its cache does not "
        f"hold the whole {kind} ({_reason(unreachable)}); correct the path, or repeat the command "
        "with network"
    ) from unreachable


def _reason(error: Exception | None) -> str:
    """What hindered the connection."""
    cause = error and (error.__cause__ or error)
    return one_line(cause)[:160] if cause else "no revision of it"
