"""The command line of train.py, as far as it is not Hydra's: its help, and settings to add."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

OWN_CONFIGS = "configs"
"""Folder of the user's own configs, looked through without being named."""
USAGE = """\
python train.py --config-name=NAME [key=value ...]

  --config-name=NAME     one of the configs below, or one of your own
  --config-dir=FOLDER    also look for configs there: FOLDER/task/my_task.yaml, FOLDER/NAME.yaml
                         (a folder configs, where you are, is looked through without it)
  task=NAME policy=NAME  another task or policy; without --config-name on top of train.yaml
  key=value              another setting, such as training.debug=true or optimizer.lr=1e-4
  -m key=1,2             a sweep (docs/sweeps.md)
  --cfg job              print the config and end
  --hydra-help           further options

Configs (docs/training.md):
"""


def usage() -> str:
    """What ``train.py --help`` prints: options, and the named configs with what each is for."""
    configs = named_configs()
    width = max(map(len, configs))
    return USAGE + "\n".join(f"  {name:{width}}  {about}" for name, about in configs.items())


def named_configs() -> dict[str, str]:
    """The package's named runs, each with the first sentence of its comment, up to a colon."""
    folder = files("diffusion_policy") / "config"
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return {
        entry.name.removesuffix(".yaml"): _about(entry.read_text())
        for entry in entries
        if entry.name.startswith("train_")
    }


def _about(text: str) -> str:
    comment = " ".join(re.match(r"(?:#.*\n)*", text)[0].replace("#", " ").split())  # type: ignore[index]
    return re.split(r"[.:](?: |$)", comment)[0]


def with_own_configs(arguments: Sequence[str]) -> list[str]:
    """The command's arguments, with :data:`OWN_CONFIGS` if it is here and no folder is named."""
    named = ("--config-dir", "-cd", "--config-path", "-cp")
    if any(word.split("=")[0] in named for word in arguments) or not Path(OWN_CONFIGS).is_dir():
        return list(arguments)
    return [f"--config-dir={OWN_CONFIGS}", *arguments]


def with_setting_added(arguments: Sequence[str], error: BaseException) -> list[str] | None:
    """The command's arguments with a ``+`` before the setting that Hydra does not know.

    Hydra refuses a setting that the config does not name, although a class may have it with a
    default. With a ``+`` it takes any; ``workspace/config_check.py`` then refuses those that no
    class has.

    Returns:
        None if ``error`` is about something else.
    """
    match = re.match(r"Could not override '([^'/@]+)'", str(error))
    if not match or match[1].startswith("hydra."):
        return None
    name = match[1]
    changed = [f"+{word}" if word.startswith(f"{name}=") else word for word in arguments]
    return None if changed == list(arguments) else changed
