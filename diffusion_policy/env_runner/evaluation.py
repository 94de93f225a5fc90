"""Scoring a finished policy: many starts, every episode on record, honest intervals."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from av.error import FFmpegError
from omegaconf import OmegaConf

from diffusion_policy.agent.agent import Agent
from diffusion_policy.agent.local import build_agent
from diffusion_policy.checkpoint.config_changes import change_settings
from diffusion_policy.checkpoint.saved_policy import SavedPolicy
from diffusion_policy.checkpoint.trust import check_group_trusted, section_to_build
from diffusion_policy.env_runner.env_runner import EnvRunner
from diffusion_policy.env_runner.episode import Episode
from diffusion_policy.env_runner.outcomes import Outcomes
from diffusion_policy.env_runner.report import (
    CONTACT_SHEET_FILE,
    INFO_FILE,
    REPORT_FILE,
    write_report,
)
from diffusion_policy.env_runner.scores import count_successes
from diffusion_policy.env_runner.starts import group_from, starts_text
from diffusion_policy.spec.start import MAX_SEED
from diffusion_policy.util.atomic_file import replacing
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.json_text import json_text
from diffusion_policy.util.output_dir import OutputLock
from diffusion_policy.util.provenance import command_line, commit, machine
from diffusion_policy.util.pytorch_util import resolve_device, resolve_precision
from diffusion_policy.util.statistics import bootstrap_interval, wilson_interval
from diffusion_policy.workspace.score_text import score_text

VIDEO_LABEL = "eval"
EVALUATIONS = Path("data/eval")
DEFAULT_N_EPISODES, DEFAULT_START_SEED = 1000, 100_000
"""Of an evaluation on fresh seeds."""
_OPTIONS = {
    "n_test": "--n-episodes",
    "test_start_seed": "--start-seed",
    "n_test_vis": "--n-videos",
    "n_outcome_vis": "--n-videos",
    "n_train": "--n-episodes",
    "train_start_seed": "--start-seed",
    "n_train_vis": "--n-videos",
    "groups": "--starts",
    "n_workers": "--n-workers",
    "output_dir": "--output-dir",
}
"""What an evaluation sets of ``task.env_runner``, and the option that decides it."""
_PACKAGES = ("diffusion_policy", "torch", "numpy", "gymnasium", "pymunk")


def evaluate_checkpoint(
    checkpoint: Path,
    output_dir: Path | None = None,
    *,
    starts: str | None = None,
    n_episodes: int | None = None,
    start_seed: int | None = None,
    n_videos: int = 5,
    n_workers: int | None = None,
    num_threads: int | None = None,
    device: str = "auto",
    precision: str = "fp32",
    embodiment: str | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
    trust: bool = False,
) -> dict[str, Any]:
    """Evaluate a checkpoint in the task it was trained for.

    Writes ``eval_info.json``, ``report.html``, ``contact_sheet.png`` and the videos of the first
    ``n_videos`` successes and as many failures to ``output_dir``, and prints one line with the
    score.

    Args:
        checkpoint: a file written by train.py, or an exported folder.
        output_dir: None is a folder of :data:`EVALUATIONS` that is named after the checkpoint.
        starts: where episodes begin, see :func:`group_from`; None is at fresh seeds.
        n_episodes: None is :data:`DEFAULT_N_EPISODES`, or as many as there are ``starts``.
        start_seed: seed of the first episode, each further one has the next; None is
            :data:`DEFAULT_START_SEED`, or the seeds that ``starts`` have.
        num_threads: CPU threads of the policy; None is torch's choice.
        precision: of the policy's matrix products: fp32, bf16, fp16, or auto for bf16 where the
            device has it and fp32 elsewhere.
        embodiment: name of the robot that acts, for a policy that was trained on several; None is
            that of the task.
        overrides: ``key=value`` changes to the checkpoint's config, see :func:`change_settings`.
        overwrite: replace earlier results in ``output_dir``, once nothing stands in the way.
        trust: also build policies and environments from outside this package that the checkpoint
            names, which runs any code that its maker chose.

    Returns:
        What ``eval_info.json`` holds; see ``docs/evaluation.md``.

    Raises:
        UserError: an argument makes no sense, an override names what an argument sets,
            ``output_dir`` holds results already or is in use, the checkpoint or device is
            unusable, or the videos cannot be made; ``eval_info.json`` is written by then.
    """
    if starts is None:
        n_episodes = DEFAULT_N_EPISODES if n_episodes is None else n_episodes
        start_seed = DEFAULT_START_SEED if start_seed is None else start_seed
    _check_arguments(n_episodes, start_seed, n_videos, n_workers, num_threads)
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    _check_overrides(overrides)
    torch_device = resolve_device(device)
    precision = resolve_precision(precision, torch_device)
    # Before the lock, which would leave a folder behind for a checkpoint that does not exist.
    saved = SavedPolicy.read(checkpoint)
    cfg = saved.cfg
    change_settings(cfg, overrides)
    if cfg.task.get("env_runner") is None:
        raise UserError(
            f"the task of {checkpoint} has no env_runner, so nothing can play it; use a checkpoint "
            "of a task with a simulator, or run the policy in a loop of your own (docs/agent.md)"
        )
    agent = build_agent(
        saved, torch_device, precision=precision, embodiment=embodiment, trust=trust
    )
    about = {
        "command": command_line(),
        "checkpoint": str(checkpoint),
        "global_step": saved.n_steps,
        "config_name": cfg.name,
        "task": OmegaConf.select(cfg, "task.name"),
        "overrides": list(overrides),
        "device": str(torch_device),
        "precision": precision,
        "num_threads": torch.get_num_threads(),
        "starts": starts,
    }
    del saved  # a second copy of the weights
    content = section_to_build(cfg, "task.env_runner", trust=trust)
    if starts is not None and not trust:
        check_group_trusted(content.get("groups"), starts)
    output_dir = output_dir or EVALUATIONS / result_name(checkpoint)
    with OutputLock(output_dir):
        _check_output_dir(output_dir, overwrite)
        runner: EnvRunner = hydra.utils.instantiate(
            _runner_config(content, starts, n_episodes, start_seed),
            n_outcome_vis=n_videos,
            n_workers=n_workers,
            output_dir=output_dir,
        )
        with runner:
            seeds = [start.seed for group in runner.groups for start in group.starts]
            about["seed_range"] = [min(seeds), max(seeds)]
            _clear(output_dir)
            print(
                f"evaluating {checkpoint} on {torch_device}: {len(seeds)} episodes, "
                f"{starts_text(about)}, results in {output_dir}",
                flush=True,
            )
            return _evaluate(agent, runner, about, output_dir)


def _evaluate(
    agent: Agent, runner: EnvRunner, about: Mapping[str, Any], output_dir: Path
) -> dict[str, Any]:
    """Play the episodes and write everything; ``about`` says what is evaluated."""
    code = commit()  # before playing: another commit may be checked out by the end
    started = time.monotonic()
    runner.run(agent, label=VIDEO_LABEL)
    info = {
        **about,
        "per_episode": [episode.record(output_dir) for episode in runner.episodes],
        "aggregated": aggregate(runner.episodes, runner.outcomes),
        "outcomes": runner.outcomes.declaration,
        "commit": code,
        "machine": machine(),
        "versions": _versions(),
        "duration_s": round(time.monotonic() - started, 1),
    }
    # The numbers first: they should survive whatever goes wrong with the videos.
    _write_info(info, output_dir)
    with _numbers_are_kept(output_dir):
        runner.record_outcomes()
        info["per_episode"] = [episode.record(output_dir) for episode in runner.episodes]
        info["duration_s"] = round(time.monotonic() - started, 1)
        _write_info(info, output_dir)
        report = write_report(info, output_dir)
    print(f"{headline(info['aggregated'])}; see {report}")
    return info


def aggregate(episodes: Sequence[Episode], outcomes: Outcomes) -> dict[str, Any]:
    """The score of ``episodes``: rates and means with their 95 % intervals.

    The environment decides what a success is, not the reward: an episode may come very close and
    fail. Such episodes are listed as near misses. Where it does not tell, rate and interval are
    None.
    """
    n = len(episodes)
    records = [episode.record() for episode in episodes]
    successes = count_successes(episodes)
    max_rewards = np.array([episode.max_reward for episode in episodes])
    return {
        "n_episodes": n,
        "success_rate": None if successes is None else successes / n,
        "success_ci95": None if successes is None else list(wilson_interval(successes, n)),
        "mean_max_reward": float(max_rewards.mean()),
        "mean_max_reward_ci95": list(bootstrap_interval(max_rewards)),
        "mean_sum_reward": float(np.mean([episode.sum_reward for episode in episodes])),
        "mean_length": float(np.mean([episode.length for episode in episodes])),
        "failures": outcomes.count(records),
        "near_misses": [
            {key: record[key] for key in ("group", "name", "seed", "max_reward", "length")}
            for record in outcomes.near_misses(records)
        ],
    }


def headline(aggregated: dict[str, Any]) -> str:
    """The score in one line."""
    score = score_text(
        aggregated["success_rate"], aggregated["success_ci95"], aggregated["mean_max_reward"]
    )
    return f"{score} over {aggregated['n_episodes']} episodes"


def result_name(checkpoint: Path) -> str:
    """``<run>_<checkpoint>`` of a checkpoint in a run; else the name of the file or folder."""
    path = checkpoint.resolve()
    if path.is_dir():
        return path.name
    run = f"{path.parents[1].name}_" if path.parent.name == "checkpoints" else ""
    return run + path.stem


def _runner_config(
    content: Mapping[str, Any], starts: str | None, n_episodes: int | None, start_seed: int | None
) -> dict[str, Any]:
    """``task.env_runner`` of the checkpoint, to play the asked episodes and no others."""
    config = {**content, "n_train": 0, "n_test": 0, "n_test_vis": 0, "groups": None}
    if starts is None:
        return {**config, "n_test": n_episodes, "test_start_seed": start_seed}
    name, entry = group_from(starts, content.get("groups"), n_episodes, start_seed)
    return {**config, "groups": {name: {**entry, "n_vis": 0}}}


def _check_arguments(
    n_episodes: int | None,
    start_seed: int | None,
    n_videos: int,
    n_workers: int | None,
    num_threads: int | None,
) -> None:
    for name, value, least in (
        ("n-episodes", n_episodes, 1),
        ("start-seed", start_seed, 0),
        ("n-videos", n_videos, 0),
        ("n-workers", n_workers, 1),
        ("num-threads", num_threads, 1),
    ):
        if value is not None and value < least:
            raise UserError(f"--{name} is {value}; use at least {least}")
    last_seed = (start_seed or 0) + (n_episodes or 1) - 1
    if last_seed > MAX_SEED:
        raise UserError(
            f"the last seed would be {last_seed}, but seeds end at {MAX_SEED}; "
            f"lower --start-seed (now {start_seed}) or --n-episodes (now {n_episodes})"
        )


def _check_overrides(overrides: Sequence[str]) -> None:
    for override in overrides:
        key = override.lstrip("+").partition("=")[0]
        option = _OPTIONS.get(key.removeprefix("task.env_runner."))
        if option:
            raise UserError(f"override {override!r} changes nothing here; use {option} instead")


def _check_output_dir(output_dir: Path, overwrite: bool) -> None:
    info = output_dir / INFO_FILE
    if info.exists() and not overwrite:
        raise UserError(f"{info} exists already: choose another --output-dir, or --overwrite it")


def _clear(output_dir: Path) -> None:
    """Remove earlier results; an interrupted evaluation must not leave a mixture."""
    for name in (INFO_FILE, REPORT_FILE, CONTACT_SHEET_FILE):
        (output_dir / name).unlink(missing_ok=True)
    # File names tell the outcome, so old videos would stand beside new ones.
    shutil.rmtree(output_dir / "media" / VIDEO_LABEL, ignore_errors=True)


def _write_info(info: dict[str, Any], output_dir: Path) -> None:
    with replacing(output_dir / INFO_FILE) as partial:
        partial.write_text(json_text(info, indent=2))


@contextmanager
def _numbers_are_kept(output_dir: Path) -> Iterator[None]:
    """Say so when the block cannot make videos or report."""
    try:
        yield
    except (OSError, UserError, FFmpegError) as error:
        raise UserError(
            f"cannot make videos and report ({error}); the numbers are kept in "
            f"{output_dir / INFO_FILE}; for the rest free space and evaluate with --overwrite"
        ) from error


def _versions() -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **packages}
