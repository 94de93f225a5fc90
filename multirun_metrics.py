"""Aggregate the seeds of a sweep: ``python multirun_metrics.py -i DIR [DIR ...]``."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffusion_policy.util.errors import reports_user_errors

KEYS = ["test/mean_score", "train/mean_score"]
DEFAULT_WATCH_S = 30.0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Average the runs of a sweep over seeds, also while they go on: print the "
        "metrics, and write logs.json.txt, metrics.json and curves.png to DIR/metrics/. With "
        "--table, print methods against tasks instead."
    )
    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="directory of a sweep, which holds train_0, train_1, ...; each is aggregated alone",
    )
    parser.add_argument(
        "-k",
        "--keys",
        nargs="+",
        action="extend",
        metavar="KEY",
        help="scores to aggregate; the option may be repeated "
        f"(default: {' '.join(KEYS)}; with --table {KEYS[0]})",
    )
    parser.add_argument(
        "--exclude", nargs="+", default=[], metavar="RUN", help="runs to leave out, such as train_1"
    )
    parser.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=DEFAULT_WATCH_S,
        metavar="SECONDS",
        help="look again every SECONDS (default: %(const)g) until every run has been finished for "
        "a minute, or until Ctrl-C; a run that stopped before its end may be resumed, so it is "
        "waited for",
    )
    parser.add_argument("--wandb-project", metavar="NAME", help="log the metrics to wandb as well")
    parser.add_argument(
        "--wandb-mode",
        choices=("offline", "online"),
        default="offline",
        help="online needs a login at wandb (default: %(default)s)",
    )
    parser.add_argument(
        "--table",
        action="store_true",
        help="print a markdown table of all DIRs: rows are methods, columns tasks, a cell the mean "
        "over seeds with half the width of its 95 %% interval",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=["max", "last"],
        metavar="METRIC",
        help="what a cell of --table shows (default: max last); docs/sweeps.md lists all metrics",
    )
    arguments = parser.parse_args()
    if arguments.table and (arguments.watch is not None or arguments.wandb_project):
        parser.error("--table cannot be combined with --watch or --wandb-project")
    if arguments.watch is not None and not arguments.watch > 0:
        parser.error(f"--watch {arguments.watch:g}: use more than 0 seconds")
    return arguments


@reports_user_errors
def main() -> None:
    arguments = parse_arguments()
    # Imported late, so that --help and a mistyped option do not wait for matplotlib.
    from diffusion_policy.runs.aggregate import aggregate_sweeps
    from diffusion_policy.runs.method_table import tabulate_sweeps

    if arguments.table:
        keys = arguments.keys or KEYS[:1]
        tabulate_sweeps(arguments.input, keys, arguments.metrics, arguments.exclude)
    else:
        project = arguments.wandb_project
        aggregate_sweeps(
            arguments.input,
            arguments.keys or KEYS,
            exclude=arguments.exclude,
            watch_s=arguments.watch,
            wandb=(project, arguments.wandb_mode) if project else None,
        )


if __name__ == "__main__":
    main()
