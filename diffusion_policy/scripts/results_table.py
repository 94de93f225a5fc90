"""Write RESULTS.md, the table of all recorded runs, anew.

    python -m diffusion_policy.scripts.results_table

is to be run in the root of the repository, after record_result has written to docs/results.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from diffusion_policy.common.errors import reports_user_errors
from diffusion_policy.common.output_dir import write_atomically
from diffusion_policy.results.table import results_page


@reports_user_errors
def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    write_atomically(Path("RESULTS.md"), results_page(Path()).encode())


if __name__ == "__main__":
    main()
