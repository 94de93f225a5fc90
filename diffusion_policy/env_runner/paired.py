"""Several checkpoints on the same episodes: their scores side by side, and paired differences.

Two policies that begin from the same starts meet the same luck. The difference of each pair of
episodes leaves it out, so its interval is narrower than those of the two scores tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from diffusion_policy.checkpoint.saved_policy import saved_config
from diffusion_policy.env_runner.evaluation import EVALUATIONS, evaluate_checkpoint, result_name
from diffusion_policy.env_runner.report import INFO_FILE
from diffusion_policy.util.config import plain
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_text import json_text
from diffusion_policy.util.output_dir import write_atomically
from diffusion_policy.util.statistics import bootstrap_interval
from diffusion_policy.util.tables import aligned_table

PAIRED_FILE = "paired.json"
_SCORES = {"success": "success_rate", "max_reward": "mean_max_reward"}
"""What of an episode is compared, and the name of its mean."""


def evaluate_checkpoints(
    checkpoints: Sequence[Path], output_dir: Path | None = None, **options: Any
) -> list[dict[str, Any]]:
    """Evaluate each checkpoint on the same starts, and compare the others with the first.

    Writes a folder for each of them, and ``paired.json``; prints a table.

    Args:
        checkpoints: one or more; a single one is evaluated as it is.
        output_dir: holds the folders; None is one in ``data/eval``.
        options: see :func:`evaluate_checkpoint`.

    Returns:
        The differences, as ``paired.json`` holds them.

    Raises:
        UserError: the tasks differ, a checkpoint is named twice, or one cannot be evaluated.
    """
    if len(checkpoints) == 1:
        evaluate_checkpoint(checkpoints[0], output_dir, **options)
        return []
    names = [result_name(checkpoint) for checkpoint in checkpoints]
    _check(checkpoints, names)
    folder = output_dir or EVALUATIONS / f"{names[0]}_and_{len(names) - 1}_more"
    for name in names:  # before the first of them is played
        if (folder / name / INFO_FILE).exists() and not options.get("overwrite"):
            raise UserError(
                f"{folder / name} holds results already; choose another --output-dir, or "
                "--overwrite them"
            )
    infos = [
        evaluate_checkpoint(checkpoint, folder / name, **options)
        for checkpoint, name in zip(checkpoints, names, strict=True)
    ]
    found = [
        {"checkpoint": name, "against": names[0], **differences(infos[0], info)}
        for name, info in zip(names[1:], infos[1:], strict=True)
    ]
    write_atomically(folder / PAIRED_FILE, json_text(found, indent=2).encode())
    print(f"\n{_table(names, infos, found)}\n\nsee {folder}")
    return found


def differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """How much better ``other`` did than ``first``, over their common starts.

    Args:
        first, other: what two ``eval_info.json`` hold.

    Returns:
        ``n_episodes``, and for each score that all episodes have, its mean difference and under
        ``<score>_ci95`` the interval of that (paired bootstrap).

    Raises:
        UserError: they have no start in common.
    """
    before, after = ({_start(e): e for e in info["per_episode"]} for info in (first, other))
    common = [start for start in before if start in after]
    if not common:
        raise UserError("the evaluations have no start in common; evaluate with the same --starts")
    found: dict[str, Any] = {"n_episodes": len(common)}
    for key, name in _SCORES.items():
        pairs = [(before[start].get(key), after[start].get(key)) for start in common]
        if any(value is None for pair in pairs for value in pair):
            continue
        change = np.array([float(new) - float(old) for old, new in pairs])
        found[name] = float(change.mean())
        found[f"{name}_ci95"] = list(bootstrap_interval(change))
    return found


def _start(episode: Mapping[str, Any]) -> tuple[Any, ...]:
    return episode["group"], episode["name"], episode["seed"]


def _check(checkpoints: Sequence[Path], names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two checkpoints are called {name}; copy one to a name of its own")
    worlds = [_environment(checkpoint) for checkpoint in checkpoints]
    for checkpoint, world in zip(checkpoints, worlds, strict=True):
        if world != worlds[0]:
            raise UserError(
                f"{checkpoint} plays in {world} and {checkpoints[0]} in {worlds[0]}; compare "
                "checkpoints of one environment"
            )


def _environment(checkpoint: Path) -> str | None:
    """Name of the environment; its arguments may differ, as they choose what is observed."""
    env = plain(OmegaConf.select(saved_config(checkpoint), "task.env_runner.env"))
    # What is no description is refused when it is evaluated.
    return (env.get("id") or env.get("factory")) if isinstance(env, dict) else None


def _table(
    names: Sequence[str], infos: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]
) -> str:
    rows = [["checkpoint", *_SCORES.values(), *(f"difference of {n}" for n in _SCORES.values())]]
    for name, info, difference in zip(names, infos, ({}, *found), strict=True):
        means = [info["aggregated"].get(score) for score in _SCORES.values()]
        shown = ["" if mean is None else f"{mean:.3f}" for mean in means]
        rows.append([name, *shown, *(_difference(difference, n) for n in _SCORES.values())])
    return aligned_table(rows)


def _difference(found: Mapping[str, Any], score: str) -> str:
    if score not in found:
        return ""
    low, high = found[f"{score}_ci95"]
    return f"{found[score]:+.3f} [{low:+.3f}, {high:+.3f}]"
