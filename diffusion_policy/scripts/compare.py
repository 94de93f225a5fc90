"""Read runs side by side in a browser.

    python -m diffusion_policy.scripts.compare DIR... --output compare.html

writes one page with scores, curves, differing settings and videos; it needs no other file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from diffusion_policy.util.errors import UserError, reports_user_errors

DEPTH = 2
"""Runs are searched for so many folders below a directory: a day of sweeps holds them two deep."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Write one HTML page to read runs side by side: scores with intervals, means "
        "over seeds, curves, the settings that differ, and videos of the last rollouts."
    )
    parser.add_argument(
        "directories",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="a run, a sweep, or a folder that holds several sweeps",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("compare.html"),
        help="the page; an earlier page is replaced (default: %(default)s)",
    )
    parser.add_argument(
        "--videos",
        type=int,
        default=2,
        metavar="N",
        help="show at most N videos of each run (default: %(default)s)",
    )
    return parser.parse_args()


def write_comparison(directories: Sequence[Path], output: Path, n_videos: int = 2) -> None:
    """Write the page on all runs in ``directories``.

    Raises:
        UserError: a directory is missing or holds no run, or the page cannot be written.
    """
    from tqdm import tqdm

    from diffusion_policy.runs.comparison import KEYS, comparison
    from diffusion_policy.runs.run import find_runs
    from diffusion_policy.util.output_dir import write_atomically

    if n_videos < 0:
        raise UserError(f"--videos is {n_videos}; use at least 0")
    runs = find_runs(directories, KEYS, depth=DEPTH)
    for run in tqdm(runs, desc="Reading logs", delay=2, disable=None):
        run.refresh()
    text = comparison(runs, ", ".join(map(str, directories)), n_videos).encode()
    write_atomically(output, text)
    count = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    print(f"{count}; look at {output} ({len(text) / 1e6:.1f} MB)")


@reports_user_errors
def main() -> None:
    arguments = parse_arguments()
    write_comparison(arguments.directories, arguments.output, arguments.videos)


if __name__ == "__main__":
    main()
