"""Download a published data set.

    python -m diffusion_policy.scripts.download_data pusht

Repeat the command to resume after an interruption. Without a network, download the archive on
another machine, put it into the output folder and run the command, which then only unpacks it.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from diffusion_policy.dataset.stores.replay_buffer import ReplayBuffer
from diffusion_policy.dataset.stores.zip_archive import check_members, root_in_zip
from diffusion_policy.util.atomic_file import replacing
from diffusion_policy.util.download import download
from diffusion_policy.util.errors import UserError, reports_user_errors


@dataclass(frozen=True)
class PublishedData:
    """A zip archive of one zarr group, with facts to verify it.

    Attributes:
        url: address of the archive.
        folder: folder for the unpacked data, below the output folder.
        n_episodes: number of episodes.
        n_steps: number of steps of all episodes.
        sha256: checksum of the archive. None where none is published; the sum is then only
            printed.
    """

    url: str
    folder: str
    n_episodes: int
    n_steps: int
    sha256: str | None = None


DATA = {
    "pusht": PublishedData(
        url="https://diffusion-policy.cs.columbia.edu/data/training/pusht.zip",
        folder="pusht/pusht_cchi_v7_replay.zarr",
        n_episodes=206,
        n_steps=25_650,
    ),
}


def fetch(data: PublishedData, output: Path, url: str | None = None) -> Path:
    """Download and unpack ``data`` below ``output`` unless it exists; return its folder.

    Args:
        url: a mirror to use in place of ``data.url``.

    Raises:
        UserError: the download fails, the archive is damaged, or it is not the expected data set.
    """
    folder = output / data.folder
    if not folder.exists():
        archive = output / data.url.rpartition("/")[2]
        if not archive.exists():
            download(url or data.url, archive)
        _check_sum(archive, data.sha256)
        with replacing(folder) as temporary:
            _unpack(archive, temporary)
            _check_contents(
                temporary, data, f"remove {archive} and download it again, or change --url"
            )
        archive.unlink()
    _check_contents(folder, data, f"remove {folder} and repeat the command")
    return folder


def _check_sum(archive: Path, expected: str | None) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    print(f"sha256 of {archive}: {found}")
    if expected is not None and found != expected:
        raise UserError(
            f"{archive} has sha256 {found}, not {expected}: remove it and download it again"
        )


def _unpack(archive: Path, folder: Path) -> None:
    """Write the archive's zarr group to ``folder``; the zip's checksums verify every file."""
    try:
        with zipfile.ZipFile(archive) as source:
            check_members(source, str(archive), archive.stat().st_size)
            root = Path(root_in_zip(source, str(archive)))
            files = [info for info in source.infolist() if not info.is_dir()]
            desc = f"Unpacking {archive.name}"
            for info in tqdm(files, desc=desc, unit=" files", disable=None):
                if not Path(info.filename).is_relative_to(root):
                    continue
                target = folder / Path(info.filename).relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                with source.open(info) as packed, target.open("wb") as file:
                    shutil.copyfileobj(packed, file)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UserError(
            f"{archive} is damaged ({error}): remove it and download it again"
        ) from error


def _check_contents(folder: Path, data: PublishedData, remedy: str) -> None:
    buffer = ReplayBuffer.create_from_path(folder)
    found, expected = (buffer.n_episodes, buffer.n_steps), (data.n_episodes, data.n_steps)
    if found != expected:
        raise UserError(
            f"{folder.name} holds {found[0]} episodes with {found[1]} steps in total, "
            f"not {expected[0]} with {expected[1]}: {remedy}"
        )


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not 64 hexadecimal digits")
    return text.lower()


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=sorted(DATA), help="data set to download")
    parser.add_argument("--output", type=Path, default=Path("data"), help="default: %(default)s")
    parser.add_argument("--url", help="mirror of the archive")
    parser.add_argument(
        "--sha256",
        type=_sha256,
        metavar="HEX",
        help="refuse an archive with another sha256; an earlier download printed it",
    )
    options = parser.parse_args(arguments)
    data = DATA[options.name]
    if options.sha256 is not None:
        folder = options.output / data.folder
        if folder.exists():
            raise UserError(
                f"{folder} exists already, but --sha256 checks its archive: remove the folder to "
                "download the archive again, or omit --sha256"
            )
        data = replace(data, sha256=options.sha256)
    try:
        folder = fetch(data, options.output, options.url)
    except OSError as error:
        raise UserError(
            f"cannot write below {options.output} ({error}): free space or choose another --output"
        ) from error
    print(f"{folder}: {data.n_episodes} episodes, {data.n_steps} steps")


if __name__ == "__main__":
    main()
