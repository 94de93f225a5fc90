"""Write the task of a data set that somebody else recorded, so that policies train on it.

    python -m diffusion_policy.scripts.make_task PATH --name my_arm

reads LeRobot, HDF5 and zarr data, and writes ``configs/task/my_arm.yaml``, where train.py finds it.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.dataset.task_of_store import check_task, name_of, task_yaml
from diffusion_policy.util.atomic_file import replacing
from diffusion_policy.util.errors import UserError, reports_user_errors, writing
from diffusion_policy.util.train_command import OWN_CONFIGS, named_configs


def write_task(path: str, name: str | None = None, folder: Path = Path(OWN_CONFIGS)) -> Path:
    """Write the task of the data set at ``path`` to ``folder``/task.

    Args:
        path: of the data set, or its name on the hub.
        name: of the task; None takes that of the data set.

    Raises:
        UserError: the data cannot be read, the name cannot be that of a file, or there is a task
            of that name.
    """
    name = name_of(path) if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9_]\w*", name, re.ASCII):
        raise UserError(f"--name is {name!r}; use letters, digits and _, as in my_arm")
    output = folder / "task" / f"{name}.yaml"
    if output.exists():
        raise UserError(f"{output} exists; remove it, or choose another --name")
    local = Path(path)
    text = task_yaml(open_store(path), str(local.resolve()) if local.exists() else path, name)
    check_task(text)
    with writing(output), replacing(output) as partial:
        partial.write_text(text)
    return output


def train_command(task: Path) -> str:
    """The command that trains on a task."""
    folder = task.parent.parent
    where = "" if folder == Path(OWN_CONFIGS) else f" --config-dir={shlex.quote(str(folder))}"
    config = "train_act" if "train_act" in named_configs() else "train_dot"
    return f"python train.py{where} --config-name={config} task={task.stem}"


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Write the YAML of a task for a data set: what it observes and commands, its "
        "rate and its robot. Change it as you like, then train."
    )
    parser.add_argument("path", help="of a LeRobot, HDF5 or zarr data set, or a name on the hub")
    parser.add_argument("--name", help="of the task (default: from the path)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(OWN_CONFIGS),
        help=f"folder of configs, in which task/NAME.yaml is written (default: {OWN_CONFIGS})",
    )
    options = parser.parse_args(arguments)
    task = write_task(options.path, options.name, options.output)
    print(f"wrote {task}; go on with\n  {train_command(task)}")


if __name__ == "__main__":
    main()
