"""The launches of a run: command, commit, machine, steps and seconds of each."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_file import NUMBER, read_json
from diffusion_policy.util.json_text import json_text
from diffusion_policy.util.output_dir import write_atomically
from diffusion_policy.util.provenance import command_line, commit, machine

LAUNCHES_FILE = "launches.json"
_SHAPE = [{"command": str, "commit": str, "machine": str, "steps": [int, int], "seconds": NUMBER}]
_REMEDY = "correct it, or move it away to go on without these records"


class Launches:
    """Writes ``launches.json``: a record for each time that the run was started or resumed.

    A record has ``command``, ``commit``, ``machine``, ``steps`` (first and last) and ``seconds``.
    It is updated whenever a state is saved. The next launch repeats what a killed launch did after
    its last saved state, and counts it.

    Args:
        output_dir: output directory of the run.
        first_step: optimiser step of the state that this launch resumes, or 0.

    Attributes:
        current: command, commit and machine of this launch.
    """

    def __init__(self, output_dir: Path, first_step: int) -> None:
        self.output_dir = output_dir
        self._first_step = first_step
        # A run that starts again forgets the launches whose states it replaces.
        earlier = read_launches(output_dir) if (output_dir / LAUNCHES_FILE).is_file() else []
        self._earlier = [launch for launch in earlier if launch["steps"][0] < first_step]
        self.current = {"command": command_line(), "commit": commit(), "machine": machine()}
        self._started = time.monotonic()

    def save(self, step: int) -> None:
        """Record that the state after optimiser step ``step`` is saved."""
        progress = {
            "steps": [self._first_step, step],
            "seconds": round(time.monotonic() - self._started, 1),
        }
        _write(self.output_dir, [*self._earlier, {**self.current, **progress}])


def complete_launches(output_dir: Path, step: int) -> None:
    """Let the last record reach ``step``, which was saved before a crash kept it from being told.

    The seconds since the save before are not known and left out.
    """
    if not (output_dir / LAUNCHES_FILE).is_file():
        return
    launches = read_launches(output_dir)
    if launches[-1]["steps"][1] < step:
        launches[-1]["steps"][1] = step
        _write(output_dir, launches)


def _write(output_dir: Path, launches: list[dict[str, Any]]) -> None:
    write_atomically(output_dir / LAUNCHES_FILE, json_text(launches, indent=2).encode())


def read_launches(output_dir: Path) -> list[dict[str, Any]]:
    """Read the records of a run.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = output_dir / LAUNCHES_FILE
    if not path.is_file():
        raise UserError(
            f"{output_dir} holds no {LAUNCHES_FILE}, which train.py writes; for a run of an "
            'earlier version write it: [{"command": "python train.py ...", "commit": "...", '
            '"machine": "...", "steps": [0, 1000], "seconds": 600}]'
        )
    launches = read_json(path, _SHAPE, _REMEDY)
    if not launches:
        raise UserError(f"{path} is damaged (it holds no launch); {_REMEDY}")
    return launches
