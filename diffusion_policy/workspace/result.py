"""What a run has reached, read from its log and its latest checkpoint."""

from __future__ import annotations

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
    if scored := [record for record in records if "test/mean_score" in record]:
        return _score(scored[-1])
    if validated := [record for record in records if "val_loss" in record]:
        return _best_validation(output_dir, validated)
    losses = [record for record in records if "train_loss" in record]
    return f"training loss {losses[-1]['train_loss']:.4g}" if losses else "nothing was logged"


def _score(record: dict[str, Any]) -> str:
    rate = record.get("test/success_rate")
    interval = None
    if rate is not None:
        interval = record["test/success_ci_low"], record["test/success_ci_high"]
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
        record = next(record for record in records if record["val_loss"] == loss)
    steps = record["global_step"] + 1
    loss = float(record["val_loss"])  # one that is not finite is text in the log
    return f"{kind}validation loss {loss:.4g} after {steps:,} steps, in {path}"


def last_value(output_dir: Path, key: str) -> float | None:
    """What a run last logged under ``key``, in which / may be written _; None if it never did."""
    found = (
        record[name]
        for record in reversed(read_log(output_dir / LOG_FILE))
        for name in record
        if name.replace("/", "_") == key.replace("/", "_")
    )
    return next(found, None)
