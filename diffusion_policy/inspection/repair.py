"""Repair what can be repaired of a LeRobot dataset without guessing, in a copy.

Counts, lengths, numbers of steps, timestamps and statistics follow from the recorded rows. What an
interrupted recording left behind at the end is dropped: an episode whose file was never finished,
or that only a part of the files knows. Damage anywhere else is not repaired.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from diffusion_policy.dataset.stores.lerobot.info import INFO, is_lerobot, read_info
from diffusion_policy.dataset.stores.open_store import open_store
from diffusion_policy.inspection.repair_2 import repair_2
from diffusion_policy.inspection.repair_3 import repair_3
from diffusion_policy.util.atomic_file import replacing
from diffusion_policy.util.errors import UserError, writing
from diffusion_policy.util.json_text import json_text


class _NothingToRepairError(Exception):
    pass


def repair(source: Path, target: Path) -> list[str]:
    """Write a repaired copy of a data set.

    Args:
        source: the data set, which stays as it is.
        target: the copy; it appears when it is whole, and only if there was something to repair.

    Returns:
        What was changed, a line each.

    Raises:
        UserError: it is no LeRobot dataset, something else is wrong with it, or ``target`` exists.
    """
    if not is_lerobot(source):
        raise UserError(
            f"{source} is no LeRobot dataset, the only ones that are repaired; record or fetch it "
            "again"
        )
    if target.exists():
        raise UserError(f"{target} exists; remove it, or choose another --repair-to")
    info = read_info(source)
    try:
        with writing(target), replacing(target) as partial:
            shutil.copytree(source, partial, ignore=_not_files)
            try:
                changed = (repair_3 if info["codebase_version"] == "v3.0" else repair_2)(
                    partial, info
                )
                if info != read_info(source):
                    changed.append(f"{INFO}: {_differences(read_info(source), info)}")
                    (partial / INFO).write_text(json_text(info, indent=4))
                if not changed:
                    raise _NothingToRepairError
                open_store(partial)
            except UserError as error:
                reason = str(error).replace(str(partial), str(source))
                raise UserError(f"this cannot be repaired without guessing: {reason}") from None
    except _NothingToRepairError:
        return []
    return changed


def _not_files(folder: str, names: list[str]) -> list[str]:
    """What is not copied: devices and pipes, and links to folders, which may have no end."""
    paths = [Path(folder, name) for name in names]
    return [p.name for p in paths if not p.is_file() and (p.is_symlink() or not p.is_dir())]


def _differences(before: dict, after: dict) -> str:
    changed = [key for key in after if before.get(key) != after[key]]
    return ", ".join(f"{key} {before.get(key)} -> {after[key]}" for key in changed)
