"""Write a data set in another format.

    python -m diffusion_policy.scripts.convert_dataset SRC DST --to lerobot-v3.0 --fps 10

A conversion that was interrupted goes on where it stopped when the same command is repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_policy.util.errors import UserError, reports_user_errors


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """What every command that writes a data set can be told."""
    parser.add_argument(
        "--codec", choices=("av1", "h264", "hevc"), help="of videos (av1; of groot: h264)"
    )
    parser.add_argument("--crf", type=int, help="quality of videos; less is better and larger")
    parser.add_argument("--gop", type=int, help="a key frame every so many frames (2)")
    parser.add_argument(
        "--lossless", action="store_true", help="LeRobot: PNG pictures in place of videos"
    )
    parser.add_argument(
        "--reencode", action="store_true", help="encode videos anew even where copying would do"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes for pictures (1)")
    parser.add_argument(
        "--backend",
        choices=("processes", "ray"),
        default="processes",
        help="ray: on the machines of a cluster that share the disk",
    )
    parser.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="check what was written and compare it with the source",
    )
    parser.add_argument(
        "--cache-dir", default="data/cache", help="where what is decoded once is kept"
    )


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Write a data set in another format. The same command goes on with an "
        "interrupted conversion; nothing half-written has the name of the result."
    )
    parser.add_argument("source", metavar="SRC", help="data set of any format that trains here")
    parser.add_argument("target", metavar="DST", type=Path, help="the folder (or .zip) to write")
    parser.add_argument(
        "--to",
        required=True,
        choices=("zarr", "lerobot-v2.1", "lerobot-v3.0", "groot"),
        help="the format",
    )
    parser.add_argument("--fps", type=float, help="recorded steps per second, if SRC has none")
    parser.add_argument("--task", help="text of the task of episodes that have none")
    parser.add_argument("--robot-type", help="name of the robot, for LeRobot's info.json")
    parser.add_argument(
        "--modality", type=Path, metavar="FILE", help="modality.json of groot; else it is derived"
    )
    add_output_options(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace DST at the end")
    return parser.parse_args(arguments)


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    from diffusion_policy.dataset.convert import convert
    from diffusion_policy.dataset.prepared_episode import Source

    summary = convert(
        Source((options.source,), cache_dir=options.cache_dir),
        options.target,
        target_of(options, options.to),
        **run_options(options),
        overwrite=options.overwrite,
    )
    print(
        f"wrote {summary.path}: {options.to}, {summary.n_episodes} episodes, "
        f"{summary.n_steps} steps" + (", verified" if options.verify else "")
    )


def run_options(options: argparse.Namespace) -> dict[str, Any]:
    """How the work is done, of the options of :func:`add_output_options`."""
    if options.workers < 1:
        raise UserError(f"--workers is {options.workers}; use at least 1")
    return {k: getattr(options, k) for k in ("workers", "backend", "verify")}


def target_of(options: argparse.Namespace, kind: Any) -> Any:
    """The :class:`Target` that the options describe."""
    from dataclasses import replace

    from diffusion_policy.dataset.convert import Target
    from diffusion_policy.dataset.stores.lerobot.groot import GROOT_ENCODING
    from diffusion_policy.dataset.video.encoder import VideoEncoding
    from diffusion_policy.util.json_file import read_json

    if options.fps is not None and not 0 < options.fps <= 1e6:
        raise UserError(f"--fps is {options.fps:g}; give the recorded steps per second")
    usual = GROOT_ENCODING if kind == "groot" else VideoEncoding()
    given = {"codec": options.codec, "crf": options.crf, "g": options.gop}
    encoding = replace(usual, **{k: v for k, v in given.items() if v is not None})
    modality = None
    if options.modality is not None:
        if kind != "groot":
            raise UserError(f"--modality is for --to groot, not {kind}; leave it out")
        modality = read_json(options.modality, {}, "give the modality.json of your robot")
    return Target(
        kind,
        options.fps,
        options.task,
        options.robot_type,
        encoding,
        options.lossless,
        options.reencode,
        getattr(options, "recompute_statistics", False),
        modality,
    )


if __name__ == "__main__":
    main()
