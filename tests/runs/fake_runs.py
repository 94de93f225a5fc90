"""Output directories like those of train.py, without training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from diffusion_policy.runs.metrics import LOSSES, Evaluations, evaluations
from diffusion_policy.runs.run_log import number

N_EPOCHS = 4
GOLDEN = Path(__file__).parents[1] / "golden" / "multirun"


def records(scores: Sequence[float], **more: Any) -> list[dict[str, Any]]:
    """An epoch of two steps for each score; the second record of it is the evaluation."""
    found = []
    for epoch, score in enumerate(scores):
        step = {"epoch": epoch, "train_loss": 1.0 / (epoch + 1)}
        rollout = {"test/mean_score": score, "test/success_rate": score / 2, **more}
        found.append({**step, "global_step": 2 * epoch})
        found.append({**step, "global_step": 2 * epoch + 1, "val_loss": 2.0 - epoch, **rollout})
    return found


def evaluated(records: Sequence[Mapping[str, Any]], key: str) -> Evaluations:
    """The evaluations by ``key`` of a log with ``records``."""
    names = ("global_step", key, *LOSSES)
    table = [[number(record.get(name)) for record in records] for name in names]
    return evaluations(dict(zip(names, map(np.array, table), strict=True)), key)


def lines(records: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def make_run(
    directory: Path, scores: Sequence[float] = (), settings: Sequence[str] = (), **more: Any
) -> Path:
    """A run that logged these scores, N_EPOCHS of which finish it; settings are key=value."""
    cfg = OmegaConf.create(
        {
            "name": "train_dot_pusht",
            "task": {"name": "pusht_keypoints"},
            "training": {"seed": 42, "num_epochs": N_EPOCHS},
            "optimizer": {"lr": 1e-3},
        }
    )
    cfg.merge_with_dotlist(list(settings))
    (directory / ".hydra").mkdir(parents=True)
    (directory / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    (directory / "logs.json.txt").write_text(lines(records(scores, **more)))
    return directory
