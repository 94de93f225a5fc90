"""Choose, cut and join episodes of a data set, rename its keys, or set its task.

    python -m diffusion_policy.scripts.edit_dataset data/arm --output data/clean --delete 3,7-9

The result has the format of the source and passes the same checks as a converted data set. Videos
are copied packet by packet wherever an episode begins with a key frame.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from diffusion_policy.scripts.convert_dataset import add_output_options, run_options, target_of
from diffusion_policy.util.errors import UserError, reports_user_errors

K = TypeVar("K")
V = TypeVar("V")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Write an edited copy of one or more data sets. Numbers of episodes and steps "
        "are those before the edit, counted from 0 over all PATHs."
    )
    parser.add_argument(
        "paths", metavar="PATH", nargs="+", help="data sets; several of equal keys become one"
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--output", type=Path, help="the data set to write")
    where.add_argument(
        "--in-place", action="store_true", help="replace PATH, in one step at the end"
    )
    episodes = parser.add_argument_group("episodes")
    episodes.add_argument("--keep", metavar="0,4-7", help="only these, in this order")
    episodes.add_argument("--delete", metavar="3,7-9", help="all but these")
    episodes.add_argument(
        "--split",
        metavar="EPISODE:STEP[,STEP]",
        action="append",
        default=[],
        help="begin other episodes at these steps of one; may be repeated",
    )
    episodes.add_argument(
        "--merge", metavar="4-5", action="append", default=[], help="join these; may be repeated"
    )
    keys = parser.add_argument_group("keys")
    keys.add_argument(
        "--rename", metavar="OLD=NEW", action="append", default=[], help="may be repeated"
    )
    keys.add_argument("--drop", metavar="KEY", action="append", default=[], help="may be repeated")
    keys.add_argument(
        "--swap", metavar="KEY=KEY", action="append", default=[], help="two cameras, for instance"
    )
    parser.add_argument("--set-task", metavar="TEXT", help="the task of all episodes")
    parser.add_argument(
        "--to",
        choices=("zarr", "lerobot-v2.1", "lerobot-v3.0", "groot"),
        help="another format than that of the first PATH",
    )
    parser.add_argument("--fps", type=float, help="recorded steps per second, if PATH has none")
    parser.add_argument("--robot-type", help="name of the robot, for LeRobot's info.json")
    parser.add_argument(
        "--recompute-statistics",
        action="store_true",
        help="those of pictures, too, which are else taken over with them",
    )
    add_output_options(parser)
    parser.set_defaults(modality=None, task=None)
    return parser.parse_intermixed_args(arguments)


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    from diffusion_policy.dataset.convert import convert
    from diffusion_policy.dataset.edited_store import (
        Edit,
        choose_episodes,
        rename_keys,
        whole_episodes,
    )
    from diffusion_policy.dataset.formats import format_of, usual_target
    from diffusion_policy.dataset.prepared_episode import Source
    from diffusion_policy.dataset.stores.open_store import open_store

    if options.in_place and len(options.paths) > 1:
        raise UserError("--in-place edits one data set; write several to an --output")
    stores = [open_store(path, options.cache_dir) for path in options.paths]
    pieces = whole_episodes(stores)
    edit = Edit(
        choose_episodes(
            pieces,
            kept=numbers(options.keep, "--keep", len(pieces)) if options.keep else None,
            deleted=numbers(options.delete, "--delete", len(pieces)) if options.delete else [],
            splits=_once([_split(text) for text in options.split], "--split"),
            merged=[numbers(text, "--merge", len(pieces)) for text in options.merge],
        ),
        rename_keys(
            stores[0].features,
            renamed=_once([_pair(text, "--rename") for text in options.rename], "--rename"),
            dropped=options.drop,
            swapped=[_pair(text, "--swap") for text in options.swap],
        ),
        options.set_task,
    )
    kind = options.to or format_of(options.paths[0])
    output = Path(options.paths[0]) if options.in_place else options.output
    keys = [new for new, _ in edit.keys or ()]
    target = usual_target(
        target_of(options, kind), stores[0], options.paths[0], keys, codec=options.codec
    )
    summary = convert(
        Source(tuple(options.paths), edit, options.cache_dir),
        output,
        target,
        **run_options(options),
        overwrite=options.in_place,
    )
    print(
        f"wrote {summary.path}: {kind}, {summary.n_episodes} episodes, {summary.n_steps} steps"
        + (", verified" if options.verify else "")
    )


def numbers(text: str, option: str, n: int) -> list[int]:
    """The whole numbers of a list such as ``0,4-7``, of which none is ``n`` or more.

    Raises:
        UserError: it is no such list.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UserError(f"{option} is {text!r}; write numbers of episodes, such as 0,4-7")
        stop = int(last) if dash else int(first)
        if max(int(first), stop) >= n:
            raise UserError(f"{option} is {text!r}, but there are only episodes 0 to {n - 1}")
        found += range(int(first), stop + 1)
    return found


def _once(pairs: Sequence[tuple[K, V]], option: str) -> dict[K, V]:
    """The pairs by their first; two of one first would hide one of them."""
    found = dict(pairs)
    if len(found) < len(pairs):
        firsts = [first for first, _ in pairs]
        twice = next(first for first in firsts if firsts.count(first) > 1)
        raise UserError(f"{option} names {twice} twice; write it once")
    return found


def _split(text: str) -> tuple[int, list[int]]:
    episode, colon, steps = text.partition(":")
    parts = [step.strip() for step in steps.split(",")]
    if not colon or not episode.isdecimal() or not all(part.isdecimal() for part in parts):
        raise UserError(f"--split is {text!r}; write EPISODE:STEP, such as 3:120")
    return int(episode), [int(part) for part in parts]


def _pair(text: str, option: str) -> tuple[str, str]:
    first, equals, second = text.partition("=")
    if not equals or not first or not second:
        raise UserError(f"{option} is {text!r}; write two keys as A=B")
    return first, second


if __name__ == "__main__":
    main()
