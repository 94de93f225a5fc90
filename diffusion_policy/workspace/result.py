"""What a run has reached, read from its log."""

from __future__ import annotations

from pathlib import Path

from diffusion_policy.util.json_logger import read_log
from diffusion_policy.workspace.loggers import LOG_FILE
from diffusion_policy.workspace.score_text import score_text


def final_score(output_dir: Path) -> str:
    """One line on the last rollout of a run."""
    scored = [r for r in read_log(output_dir / LOG_FILE) if "test/success_rate" in r]
    if not scored:
        return "no rollout was logged"
    last = scored[-1]
    score = score_text(
        last["test/success_rate"],
        (last["test/success_ci_low"], last["test/success_ci_high"]),
        last["test/mean_score"],
    )
    n_episodes = sum(key.startswith("test/sim_max_reward_") for key in last)
    return f"{score} over {n_episodes} episodes after {last['global_step'] + 1:,} steps"


def last_value(output_dir: Path, key: str) -> float | None:
    """What a run last logged under ``key``, in which / may be written _; None if it never did."""
    found = (
        record[name]
        for record in reversed(read_log(output_dir / LOG_FILE))
        for name in record
        if name.replace("/", "_") == key.replace("/", "_")
    )
    return next(found, None)
