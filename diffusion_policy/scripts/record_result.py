"""Put a run and its evaluation on record in docs/results.

    python -m diffusion_policy.scripts.record_result --run data/outputs/RUN \\
        --evaluation data/eval/NAME --output docs/results/NAME

writes a README with score, commands, machine and failures, and the files behind these numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from diffusion_policy.util.errors import reports_user_errors


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Write a folder with the score of a run, its config, commands, curves, two "
        "videos and kinds of failure, small enough to commit."
    )
    parser.add_argument("--run", type=Path, required=True, help="output directory of train.py")
    parser.add_argument(
        "--evaluation", type=Path, required=True, help="output directory of eval.py"
    )
    parser.add_argument("--output", type=Path, required=True, help="docs/results/NAME")
    parser.add_argument(
        "--title",
        help="title of the README (default: the one of the earlier record, or the output's name)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an earlier record, except for its notes.md",
    )
    return parser.parse_args(arguments)


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    from diffusion_policy.runs.record import record_result

    record_result(**vars(options))
    print(
        f"wrote {options.output}; bring the table of all runs up to date with "
        "python -m diffusion_policy.scripts.results_table"
    )


if __name__ == "__main__":
    main()
