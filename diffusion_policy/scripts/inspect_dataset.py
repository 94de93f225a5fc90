"""Look at a data set before you train on it: what it holds, and what may be wrong with it.

    python -m diffusion_policy.scripts.inspect_dataset PATH --output page.html

prints what was found and writes a page with plots, first frames and videos of episodes. With
``--repair`` it first writes a copy of a LeRobot dataset in which what an interrupted recording left
behind is put right.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from diffusion_policy.dataset.task_of_store import name_of
from diffusion_policy.inspection.checks import findings
from diffusion_policy.inspection.page import SHOWN, write_page
from diffusion_policy.inspection.recording import open_recording
from diffusion_policy.inspection.repair import repair
from diffusion_policy.inspection.summary import summary
from diffusion_policy.util.errors import UserError, printable, reports_user_errors


def inspect(path: str, output: Path, shown: int = SHOWN) -> None:
    """Print what a data set holds and what is suspicious, and write its page.

    Raises:
        UserError: the data set cannot be opened, or the page cannot be written.
    """
    recording = open_recording(path)
    found = findings(recording)
    print(summary(recording, found))
    print(f"\nwrote {write_page(output, recording, found, path, shown)}")


def _repair(source: Path, target: Path | None) -> str:
    """Repair a data set; returns the path of what to look at."""
    target = target or source.with_name(f"{source.name}_repaired")
    changed = repair(source, target)
    if not changed:
        print("there is nothing to repair\n")
        return str(source)
    print("\n".join(map(printable, ["repaired:", *(f"- {one}" for one in changed)])))
    print(f"wrote {target}; {source} is as it was\n")
    return str(target)


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Print what a data set holds and what may be wrong with it, and write a page "
        "to look at."
    )
    parser.add_argument("path", help="of a LeRobot, HDF5 or zarr data set, or a name on the hub")
    parser.add_argument(
        "--output", type=Path, help="the page (default: data/inspections/NAME.html)"
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="first write a copy, of a LeRobot dataset, with counts, timestamps and statistics put "
        "right and without an unfinished last episode",
    )
    parser.add_argument("--repair-to", type=Path, help="the copy (default: PATH_repaired)")
    parser.add_argument(
        "--episodes", type=int, default=SHOWN, help=f"to plot and to film (default: {SHOWN})"
    )
    options = parser.parse_args(arguments)
    if options.episodes < 1:
        raise UserError(f"--episodes is {options.episodes}; use 1 or more")
    if options.repair or options.repair_to:
        options.path = _repair(Path(options.path), options.repair_to)
    page = options.output or Path("data/inspections") / f"{name_of(options.path)}.html"
    inspect(options.path, page, options.episodes)


if __name__ == "__main__":
    main()
