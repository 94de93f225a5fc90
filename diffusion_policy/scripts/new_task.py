"""Begin a task of your own: an environment, demonstrations and a YAML that run as they are.

    python -m diffusion_policy.scripts.new_task my_task

writes the package ``my_task`` to the current folder; change it step by step (docs/extending.md).
"""

from __future__ import annotations

import argparse
import keyword
import shlex
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from diffusion_policy.util.atomic_file import replacing
from diffusion_policy.util.errors import UserError, reports_user_errors, writing

FILES = {
    "__init__.py": "__init__.py",
    "env.py": "env.py",
    "record.py": "record.py",
    "task.yaml": "config/task/{name}.yaml",
}
"""Templates, and where in the package each goes."""


def write_task(name: str, folder: Path) -> Path:
    """Write the package of a new task.

    Args:
        name: of the task and the package.
        folder: that the package goes to.

    Returns:
        The folder of the package.

    Raises:
        UserError: the name cannot be that of a package, it exists, or it cannot be written.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise UserError(
            f"the name is {name!r}; use lower-case letters, digits and _, as in my_task"
        )
    package = folder / name
    if package.exists():
        raise UserError(f"{package} exists; choose another name or --folder")
    title = "".join(word.capitalize() for word in name.split("_"))
    templates = files("diffusion_policy.scripts") / "new_task_files"
    with writing(package), replacing(package) as partial:
        for template, place in FILES.items():
            text = Template((templates / f"{template}.template").read_text())
            path = partial / place.format(name=name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.substitute(name=name, title=title))
    return package


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Write the package of a new task: an environment, a script that records "
        "demonstrations, and the task's YAML. All of it runs as it is."
    )
    parser.add_argument("name", help="of the task and its package, such as my_task")
    parser.add_argument(
        "--folder", type=Path, default=Path(), help="where the package goes (default: here)"
    )
    options = parser.parse_args(arguments)
    package = write_task(options.name, options.folder)
    folder = shlex.quote(str(options.folder.resolve()))
    is_elsewhere = options.folder.resolve() != Path.cwd()
    print(
        f"wrote {package}; go on with\n"
        + (f"  export PYTHONPATH={folder}\n" if is_elsewhere else "")
        + f"  python -m {options.name}.record\n"
        f"  python train.py --config-dir={shlex.quote(str(package / 'config'))} "
        "--config-name=train_dot "
        f"task={options.name} training.debug=true"
    )


if __name__ == "__main__":
    main()
