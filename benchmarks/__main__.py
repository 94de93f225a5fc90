"""Command line: ``python -m benchmarks [name ...] [--json FILE]``."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.case import CASES, Case, Options
from benchmarks.runner import Result, run_case
from benchmarks.suite import SUBJECTS
from diffusion_policy.util.errors import UserError, reports_user_errors


def chosen(names: Sequence[str]) -> list[Case]:
    """Return the cases whose names begin with one of ``names``, by subject; no names mean all.

    Raises:
        UserError: no case begins with one of the names.
    """
    for name in names:
        if not any(known.startswith(name) for known in CASES):
            raise UserError(f"no benchmark begins with {name!r}; see python -m benchmarks --list")
    wanted = [
        case
        for known, case in CASES.items()
        if not names or any(known.startswith(name) for name in names)
    ]
    return sorted(wanted, key=lambda case: SUBJECTS.index(case.name.partition(".")[0]))


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the cases and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        help=f"cases to run, by the beginning of their names: {', '.join(SUBJECTS)}",
    )
    parser.add_argument("--list", action="store_true", help="list the cases and exit")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the results to this file"
    )
    parser.add_argument("--demos", type=Path, help="human PushT demonstrations (zarr)")
    parser.add_argument(
        "--repeats", type=int, default=7, help="repetitions of each case (%(default)s)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=30,
        help="start no repetition of a case after this time (%(default)s)",
    )
    parser.add_argument(
        "--scratch", type=Path, default=Path("data/benchmarks"), help="scratch folder (%(default)s)"
    )
    parser.add_argument("--tiny", action="store_true", help="only check that the cases work")
    options = parser.parse_args(arguments)
    cases = chosen(options.names)
    if options.list:
        print("\n".join(f"{case.name:32}{case.what}" for case in cases))
        return
    if options.repeats < 1:
        raise UserError(f"--repeats is {options.repeats}; use at least 1")
    if options.demos is not None and not options.demos.exists():
        raise UserError(f"--demos {options.demos} does not exist; give a zarr data set")
    options.scratch.mkdir(parents=True, exist_ok=True)
    print(report.heading(), flush=True)
    results, wrong = _run(cases, options)
    print("", report.table(results), *report.growth(results), sep="\n")
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_json(results), indent=2) + "\n")
    if wrong:
        sys.exit(f"results differ from the slow computation: {', '.join(wrong)}")


def _run(cases: Sequence[Case], options: argparse.Namespace) -> tuple[list[Result], list[str]]:
    """Return the results and the names of the cases that failed their check."""
    context = Options(options.scratch, options.demos, options.tiny)
    results, wrong = [], []
    for case in cases:
        print(f"{case.name} ...", file=sys.stderr, flush=True)
        try:
            results.append(run_case(case, context, options.repeats, options.seconds))
        except AssertionError:
            traceback.print_exc()
            wrong.append(case.name)
    return results, wrong


if __name__ == "__main__":
    main()
