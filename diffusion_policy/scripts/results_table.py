"""Write RESULTS.md, the table of all recorded runs, and the page of each run again.

    python -m diffusion_policy.scripts.results_table

Run it in the root of the repository after record_result, or after a change to a notes.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from diffusion_policy.runs.record_page import README_FILE, result_page
from diffusion_policy.runs.results_table import recorded, results_page
from diffusion_policy.util.errors import reports_user_errors
from diffusion_policy.util.output_dir import write_atomically


@reports_user_errors
def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    root = Path()
    table = results_page(root)
    folders = recorded(root)
    for folder in folders:
        write_atomically(folder / README_FILE, result_page(folder).encode())
    write_atomically(root / "RESULTS.md", table.encode())
    print(f"wrote RESULTS.md and the pages of {len(folders)} recorded runs in docs/results")


if __name__ == "__main__":
    main()
