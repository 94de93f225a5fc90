"""A policy as a folder of small files that run nothing: its config and its weights, to be shared.

``config.yaml`` is the resolved config of the run, ``model.safetensors`` the policy's state_dict,
normaliser included. What a run needs to go on (optimiser, schedule) stays in its checkpoints.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from diffusion_policy.checkpoint.migration import migrate_config
from diffusion_policy.util.atomic_file import replacing
from diffusion_policy.util.config_file import read_config
from diffusion_policy.util.errors import UserError, writing
from diffusion_policy.util.weights_file import read_weights, weights_bytes

CONFIG_FILE, WEIGHTS_FILE, README_FILE = "config.yaml", "model.safetensors", "README.md"


def save_policy_folder(folder: Path, config: str, weights: Mapping[str, Tensor]) -> None:
    """Write a policy; an earlier one is replaced as a whole, but for the README that lies there.

    Args:
        config: the resolved config as YAML.
        weights: state_dict of the policy.

    Raises:
        UserError: it cannot be written, or the folder holds something else.
    """
    if folder.exists():
        require_policy_folder(folder)
    with writing(folder), replacing(folder) as partial:
        partial.mkdir()
        (partial / CONFIG_FILE).write_text(config)
        (partial / WEIGHTS_FILE).write_bytes(weights_bytes(weights))
        readme = folder / README_FILE
        if readme.is_file() and not readme.is_symlink():  # a link could bring in any file
            shutil.copy(readme, partial)


def require_policy_folder(folder: Path) -> None:
    """Refuse to take for a policy, and to replace, what holds other files too.

    Raises:
        UserError: names what does not belong there.
    """
    known = {CONFIG_FILE, WEIGHTS_FILE, README_FILE}
    others = sorted({path.name for path in folder.iterdir()} - known) if folder.is_dir() else []
    if others or not folder.is_dir():
        raise UserError(
            f"{folder} is no policy folder ({', '.join(others[:3]) or 'it is a file'}); "
            "choose another --output"
        )


def load_policy_folder(folder: Path) -> dict[str, Any]:
    """What :func:`load_checkpoint` gives for a checkpoint, read from a folder.

    Raises:
        UserError: a file is missing or damaged.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise UserError(
                f"the folder {folder} holds no {name}; give a .ckpt file (those of a run are in "
                "its checkpoints/), or a folder written by diffusion_policy.scripts.export_policy"
            )
    config = OmegaConf.to_yaml(migrate_config(read_config(folder / CONFIG_FILE)))
    return {"config": config, "state": {"model": read_weights(folder / WEIGHTS_FILE)}}
