"""Kill jobs at random moments and look at what is left: ``python -m tests.reliability.kills``.

Each trial starts a job in an empty folder, kills it with SIGKILL at one to three random moments,
looks at the folder after each kill, lets the job finish and compares the result with that of a
process that was never killed. docs/reliability.md holds the figures.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from diffusion_policy.util.tables import markdown_table

if TYPE_CHECKING:
    from tests.reliability.jobs import Job

# Forked from a process that has imported all, so that kills hit the work and not the imports.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.reliability.jobs"])
_FINISH_S = 300.0  # a job that takes longer hangs


@dataclass
class Outcome:
    """What the kills of a job did.

    Attributes:
        n_kills: processes that were killed at work.
        n_trials: jobs that were then finished and compared.
        faults: what was unreadable, lost, unequal or hung; one text each.
    """

    n_kills: int = 0
    n_trials: int = 0
    faults: list[str] = field(default_factory=list)


def _child(job: Job, folder: Path, told: Connection) -> None:
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        job.work(folder, lambda: told.send_bytes(b"."))


def _start(job: Job, folder: Path) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    told, tell = _PROCESSES.Pipe(duplex=False)
    process = _PROCESSES.Process(target=_child, args=(job, folder, tell))
    process.start()
    tell.close()
    return process, told


def _count(told: Connection) -> int:
    """How often the process told of a part that must survive."""
    n = 0
    try:
        while told.poll():
            told.recv_bytes()
            n += 1
    except EOFError:
        pass
    told.close()
    return n


def _finish(job: Job, folder: Path) -> float:
    """Let the job end; return the seconds it took."""
    began = time.monotonic()
    process, told = _start(job, folder)
    process.join(_FINISH_S)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"still at work after {_FINISH_S:.0f} s")
    told.close()
    assert process.exitcode == 0, f"ended with exit code {process.exitcode}"
    return time.monotonic() - began


def _trial(job: Job, folder: Path, reference: Path, longest: float, rng: random.Random) -> int:
    """Kill the job one to three times, then let it finish; return how often it was hit."""
    n_kills = n_told = 0
    for _ in range(rng.randint(1, 3)):
        process, told = _start(job, folder)
        process.join(rng.uniform(0, longest))
        hit = process.exitcode is None
        process.kill()
        process.join()
        n_kills += hit
        n_told += _count(told)
        job.check(folder, n_told)
    _finish(job, folder)
    job.compare(folder, reference)
    return n_kills


def kill(job: Job, n_kills: int, rng: random.Random, scratch: Path) -> Outcome:
    """Kill a job at ``n_kills`` random moments or a few more, in folders under ``scratch``."""
    outcome = Outcome()
    job.prepare()
    reference = scratch / "reference"
    reference.mkdir()
    longest = _finish(job, reference)
    with tqdm(total=n_kills, desc=job.name, disable=None) as bar:
        while outcome.n_kills < n_kills:
            folder = scratch / f"trial_{outcome.n_trials}"
            folder.mkdir()
            n = 1
            try:
                n = _trial(job, folder, reference, longest, rng)
                shutil.rmtree(folder)
            except Exception as fault:  # counted, told at the end, and its folder kept
                outcome.faults.append(f"{job.name}, {folder}: {type(fault).__name__}: {fault}")
            outcome.n_trials += 1
            outcome.n_kills += n
            bar.update(n)
    return outcome


def kill_all(
    jobs: Sequence[Callable[[Path], Job]], n_kills: int, seed: int, scratch: Path
) -> dict[str, Outcome]:
    """Share ``n_kills`` among the jobs; return what each did by its name."""
    outcomes = {}
    for make in jobs:
        folder = scratch / make.name
        inputs = folder / "inputs"
        inputs.mkdir(parents=True)
        each = -(-n_kills // len(jobs))
        outcomes[make.name] = kill(make(inputs), each, random.Random(seed), folder)
    return outcomes


def main() -> None:
    """Kill, print a table and the faults, and exit with 1 where there is one."""
    from tests.reliability.jobs import JOBS

    parser = argparse.ArgumentParser(prog="python -m tests.reliability.kills", description=__doc__)
    names = [job.name for job in JOBS]
    parser.add_argument("jobs", nargs="*", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--n-kills", type=int, default=200, help="shared among the jobs")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    if unknown := set(arguments.jobs) - set(names):
        parser.error(f"unknown job {unknown.pop()}; choose from {', '.join(names)}")
    first = _PROCESSES.Process()  # starts the process to fork from, which imports all
    first.start()
    first.join()
    jobs = [job for job in JOBS if not arguments.jobs or job.name in arguments.jobs]
    warnings.filterwarnings("ignore", "steps beyond the last episode end")  # of a killed append
    scratch = Path(tempfile.mkdtemp(prefix="kills_"))
    outcomes = kill_all(jobs, arguments.n_kills, arguments.seed, scratch)
    rows = [[n, str(o.n_kills), str(o.n_trials), str(len(o.faults))] for n, o in outcomes.items()]
    print(markdown_table(["job", "kills", "finished and compared", "faults"], rows))
    faults = [fault for outcome in outcomes.values() for fault in outcome.faults]
    print(*faults, sep="\n")
    if faults:
        raise SystemExit(1)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
