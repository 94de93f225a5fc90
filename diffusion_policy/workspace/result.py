"""What a run has reached, read from its log and its latest checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffusion_policy.checkpoint.checkpoint_file import peek_checkpoint
from diffusion_policy.checkpoint.topk import require_kept_names
from diffusion_policy.util.json_logger import read_log
from diffusion_policy.workspace.base_workspace import checkpoint_path
from diffusion_policy.workspace.loggers import LOG_FILE
from diffusion_policy.workspace.score_text import score_text


def outcome(output_dir: Path) -> str:
    """One line: the score of the last rollout, or without rollouts the best validation loss."""
    records = read_log(output_dir / LOG_FILE)
    if scored := _with(records, "test/mean_score"):
        return _score(scored[-1])
    if validated := _with(records, "val_loss"):
        return _best_validation(output_dir, validated)
    losses = _with(records, "train_loss")
    return f"training loss {losses[-1]['train_loss']:.4g}" if losses else "nothing was logged"


def _with(records: Sequence[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """The numbers of each record that tells ``key`` and its step; damaged ones may not.

    A loss that is not finite is text in the log.
    """
    numbers = []
    for record in records:
        found: dict[str, Any] = {}
        for name, value in record.items():
            with suppress(TypeError, ValueError):
                found[name] = value if isinstance(value, int) else float(value)
        if {"global_step", key} <= found.keys():
            numbers.append(found)
    return numbers


def _score(record: dict[str, Any]) -> str:
    rate = record.get("test/success_rate")
    low, high = (record.get(f"test/success_ci_{end}") for end in ("low", "high"))
    interval = None if low is None or high is None else (low, high)
    score = score_text(rate, interval, record["test/mean_score"])
    n_episodes = sum(key.startswith("test/sim_max_reward_") for key in record)
    return f"{score} over {n_episodes} episodes after {record['global_step'] + 1:,} steps"


def _best_validation(output_dir: Path, records: list[dict[str, Any]]) -> str:
    """The least loss among the kept checkpoints, or that of the latest if none is ranked by it."""
    path, kind, record = checkpoint_path(output_dir), "", records[-1]
    topk = peek_checkpoint(path)["state"]["topk"]
    if topk["monitor_key"] == "val_loss" and topk["best"]:
        name, loss = min(topk["best"].items(), key=lambda item: item[1])
        require_kept_names([name])
        path, kind = path.with_name(name), "best "
        found = [record for record in records if record["val_loss"] == loss]
        if not found:
            return f"best validation loss {loss:.4g}, in {path}"  # the log has lost its step
        record = found[0]
    steps = record["global_step"] + 1
    return f"{kind}validation loss {record['val_loss']:.4g} after {steps:,} steps, in {path}"


def last_value(output_dir: Path, key: str) -> float | None:
    """What a run last logged under ``key``, in which / may be written _; None if it never did."""
    found = (
        record[name]
        for record in reversed(read_log(output_dir / LOG_FILE))
        for name in record
        if name.replace("/", "_") == key.replace("/", "_")
    )
    return next(found, None)
