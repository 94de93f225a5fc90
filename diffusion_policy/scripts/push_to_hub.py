"""Send a data set or a policy folder to the Hugging Face hub, with a card that tells its numbers.

    python -m diffusion_policy.scripts.push_to_hub data/arm owner/arm --private

Log in first with ``hf auth login``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from diffusion_policy.util.errors import UserError, reports_user_errors
from diffusion_policy.util.hub_upload import Upload, listing, push, require_repo_id


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Send a data set of any format, or a policy folder, to the Hugging Face hub in "
        "one commit. A README.md that lies beside the files is put below the numbers of the card."
    )
    parser.add_argument("path", metavar="PATH", type=Path, help="data set or policy folder")
    parser.add_argument("repo_id", metavar="OWNER/NAME", help="the repository; made if needed")
    parser.add_argument("--private", action="store_true", help="if the repository is new")
    parser.add_argument(
        "--record", type=Path, help="of a policy: folder of record_result, for the scores"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the card and the files, and send nothing"
    )
    parser.add_argument(
        "--cache-dir", default="data/cache", help="where what is decoded once is kept"
    )
    return parser.parse_args(arguments)


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    require_repo_id(options.repo_id)
    if not options.path.exists():
        raise UserError(f"{options.path} does not exist; give a data set or a policy folder")
    is_policy = (options.path / "config.yaml").is_file()
    upload = _policy(options) if is_policy else _dataset(options)
    files = listing(upload)
    total = f"{len(files)} files, {sum(size for _, size in files) / 1e6:.1f} MB"
    if options.dry_run:
        print(upload.card)
        for name, size in files:
            print(f"{size:>12,}  {name}")
        print(f"would send {total} to the {upload.kind} {options.repo_id}")
        return
    url = push(upload, options.repo_id, private=options.private)
    print(f"sent {total} to {url}")


def _policy(options: argparse.Namespace) -> Upload:
    from diffusion_policy.checkpoint.policy_folder import load_policy_folder, require_policy_folder
    from diffusion_policy.dataset.card import own_text
    from diffusion_policy.runs.model_card import model_card

    require_policy_folder(options.path)
    load_policy_folder(options.path)  # what is damaged is not sent
    name = options.repo_id.rpartition("/")[2]
    text = own_text(options.path)
    card = model_card(options.path, name, options.repo_id, options.record, text)
    return Upload(options.path, "model", card)


def _dataset(options: argparse.Namespace) -> Upload:
    from diffusion_policy.dataset.card import dataset_card, own_text
    from diffusion_policy.dataset.formats import name_of_format
    from diffusion_policy.dataset.store_origin import metadata_of
    from diffusion_policy.dataset.stores.open_store import open_store

    if options.record is not None:
        raise UserError("--record is of a policy's run; leave it out for a data set")
    store = open_store(options.path, options.cache_dir)
    metadata = metadata_of(store)
    name = options.repo_id.rpartition("/")[2]
    text = own_text(options.path)
    card = dataset_card(store, name, name_of_format(options.path), text)
    tag = None if metadata is None else metadata.version
    return Upload(options.path, "dataset", card, tag)


if __name__ == "__main__":
    main()
