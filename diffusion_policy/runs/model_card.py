"""The card of a policy on the hub: how it was trained, and its scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from diffusion_policy.runs.record_page import facts
from diffusion_policy.runs.result import Result
from diffusion_policy.util.config_file import read_config
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.tables import markdown_table

_SCORES = {"success_rate": "success rate", "mean_max_reward": "mean max reward"}


def model_card(folder: Path, name: str, repo_id: str, record: Path | None, text: str = "") -> str:
    """README of a policy for the hub.

    Args:
        folder: with the policy's config.yaml.
        name: heading.
        repo_id: where it will be, for the commands.
        record: folder that ``diffusion_policy.scripts.record_result`` wrote; None tells no scores.
        text: follows the numbers.

    Raises:
        UserError: the record is damaged, or is of another policy.
    """
    from huggingface_hub import EvalResult, ModelCardData

    cfg = read_config(folder / "config.yaml")
    result = None if record is None else Result.read(record)
    if result is not None and _policy_of(result.cfg) != _policy_of(cfg):
        raise UserError(
            f"{record} is of {_policy_of(result.cfg)}, but {folder} of {_policy_of(cfg)}: give the "
            "record of this policy's run"
        )
    task = str(OmegaConf.select(cfg, "task.name", default="task"))
    evaluations = [
        EvalResult(
            task_type="robotics",
            dataset_type=task,
            dataset_name=task,
            metric_type=key,
            metric_name=title,
            metric_value=float(value),
        )
        for key, title in _SCORES.items()
        if (value := _score(result, key)) is not None
    ]
    scores: dict[str, Any] = {}
    if evaluations:
        scores = {"model_name": name, "eval_results": evaluations}
    data = ModelCardData(
        library_name="diffusion_policy",
        pipeline_tag="robotics",
        tags=["robotics"],
        **scores,
    )
    told: list[tuple[str, str]] = [("policy", _policy_of(cfg)), ("task", task)]
    if result is not None:
        told += [fact for fact in facts(result) if fact[0] != "policy"]
    use = (
        "```\n"
        f"hf download {repo_id} --local-dir data/pretrained/{name}\n"
        f"python eval.py --checkpoint data/pretrained/{name}\n"
        "```"
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {name}",
        markdown_table(("", ""), told),
        "## Use",
        use,
    ]
    return "\n\n".join([*parts, *([text] if text else [])]) + "\n"


def _policy_of(cfg: Any) -> str:
    return str(OmegaConf.select(cfg, "policy._target_", default="?")).rpartition(".")[2]


def _score(result: Result | None, key: str) -> float | None:
    score: Mapping[str, Any] = {} if result is None else result.score
    value = score.get(key)
    return value if isinstance(value, int | float) else None
