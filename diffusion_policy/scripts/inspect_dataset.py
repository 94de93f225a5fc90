"""Look at a data set before you train on it: what it holds, and what may be wrong with it.

    python -m diffusion_policy.scripts.inspect_dataset PATH --output page.html

prints what was found and writes a page with plots, first frames and videos of episodes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.dataset.task_of_store import name_of
from diffusion_policy.inspection.checks import findings
from diffusion_policy.inspection.page import SHOWN, write_page
from diffusion_policy.inspection.recording import Recording
from diffusion_policy.inspection.summary import summary
from diffusion_policy.util.errors import UserError, reports_user_errors


def inspect(path: str, output: Path, shown: int = SHOWN) -> None:
    """Print what a data set holds and what is suspicious, and write its page.

    Raises:
        UserError: the data set cannot be opened, or the page cannot be written.
    """
    store = open_store(path)
    if not len(store.episode_ends):
        raise UserError(f"{path} holds no episode; record some or choose another data set")
    recording = Recording(store)
    found = findings(recording)
    print(summary(recording, found))
    print(f"\nwrote {write_page(output, recording, found, path, shown)}")


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
        "--episodes", type=int, default=SHOWN, help=f"to plot and to film (default: {SHOWN})"
    )
    options = parser.parse_args(arguments)
    if options.episodes < 1:
        raise UserError(f"--episodes is {options.episodes}; use 1 or more")
    page = options.output or Path("data/inspections") / f"{name_of(options.path)}.html"
    inspect(options.path, page, options.episodes)


if __name__ == "__main__":
    main()
