"""The page of a recorded run: what it was, its score, and why episodes failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from diffusion_policy.env_runner.episode import outcome
from diffusion_policy.env_runner.outcomes import LAST_PART, Outcomes, rose_late
from diffusion_policy.env_runner.starts import starts_text
from diffusion_policy.runs.result import Result, duration, thousandths
from diffusion_policy.runs.seeds import SeedGroup
from diffusion_policy.spec.start import Start
from diffusion_policy.util.tables import markdown_table

_TEXT = """# {title}

{facts}

```
{commands}
```

{remarks}## Failures

{failures}

Each failed episode counts for the first kind that applies.{near_misses}

## Curves and episodes

{episodes}

![Curves of the training; frames of the first successes and failures]({overview})

`config.yaml` is the resolved config, `eval_info.json` the record of the evaluation,
`episodes.csv.gz` a row for each of its episodes, and `launches.json` the record of the training.
[RESULTS.md](../../../RESULTS.md) shows {beside}.
"""
README_FILE, NOTES_FILE, OVERVIEW_FILE = "README.md", "notes.md", "overview.webp"


def result_page(folder: Path, title: str | None = None) -> str:
    """Return the README of a folder of results. Its ``notes.md`` is put below the commands.

    Args:
        title: the heading; None takes :func:`title_of` the folder.

    Raises:
        UserError: the folder has no launches.json.
    """
    result, notes = Result.read(folder), folder / NOTES_FILE
    remarks = notes.read_text(errors="replace").strip() if notes.is_file() else ""
    commands = [launch["command"] for launch in result.launches] + [result.info["command"]]
    outcomes, episodes = result.outcomes, result.info["per_episode"]
    failures = outcomes.count(episodes)
    return _TEXT.format(
        title=title or title_of(folder),
        facts=markdown_table(("", ""), facts(result)),
        commands="\n".join(dict.fromkeys(commands)),
        remarks=f"{remarks}\n\n" if remarks else "",
        failures=markdown_table(
            ("kind", "episodes", "definition"),
            [
                (kind.name, failures[kind.name], kind.meaning)
                for kind in outcomes.kinds
                if kind.name in failures
            ],
        ),
        overview=OVERVIEW_FILE,
        beside="published scores beside this one" if result.is_of_benchmark else "all runs",
        near_misses=_near_misses(outcomes, episodes),
        episodes=markdown_table(
            ("seed", "outcome", "max reward", "reached at step", "steps", "video"),
            [_episode(outcomes, episode) for episode in episodes if episode["video"]],
        ),
    )


def title_of(folder: Path) -> str:
    """The heading of the README in the folder, or else the folder's name."""
    readme = folder / README_FILE
    first = readme.read_text(errors="replace").partition("\n")[0] if readme.is_file() else ""
    return first.removeprefix("# ") if first.startswith("# ") else folder.name


def facts(result: Result) -> list[tuple[str, str]]:
    """What a page about a run tells first: name and text, in markdown."""
    cfg, info, score = result.cfg, result.info, result.score
    alone = SeedGroup([result])
    n_episodes = score["n_episodes"]
    n_successes = sum(episode["success"] is True for episode in info["per_episode"])
    success = (
        f"**{alone.text('success_rate')} success**, {n_successes} of {n_episodes}"
        if alone.knows("success_rate")
        else f"{n_episodes} episodes, whose success the environment does not tell"
    )
    paths = ", ".join(f"`{path}`" for path in result.demonstration_paths)
    return [
        (
            "score",
            f"{success}; mean max reward {alone.text('mean_max_reward')}; 95 % intervals in "
            "brackets, all rounded down",
        ),
        (
            "evaluation",
            ", ".join([f"{starts_text(info)} with `{info['checkpoint']}`", *_changes(info)]),
        ),
        ("policy", f"`{cfg.policy._target_.rpartition('.')[2]}`, config `{cfg.name}`"),
        ("demonstrations", f"{result.demonstrations}: {paths}"),
        ("training", f"{result.effort}, with rollouts"),
        ("seed", str(cfg.training.seed)),
        ("commit", _each(result, "commit")),
        ("machine", _each(result, "machine")),
        ("duration of the evaluation", duration(info["duration_s"])),
        ("versions", ", ".join(f"{name} {v}" for name, v in info["versions"].items())),
    ]


def _changes(info: Mapping[str, Any]) -> list[str]:
    """How the evaluated policy differs from the trained one."""
    changes = [f"`{override}`" for override in info.get("overrides", [])]
    precision = info.get("precision", "fp32")  # earlier versions had no other
    return changes if precision == "fp32" else [*changes, f"matrix products in {precision}"]


def _each(result: Result, key: str) -> str:
    """``key`` of the launches, and of the evaluation where it differs."""
    trained = " and ".join(dict.fromkeys(launch[key] for launch in result.launches))
    evaluated = result.info[key]
    return trained if trained == evaluated else f"{trained}; evaluation {evaluated}"


def _near_misses(outcomes: Outcomes, episodes: Iterable[Mapping[str, Any]]) -> str:
    """Tell whether the near misses would have needed more time, or had stopped improving."""
    near_misses = outcomes.near_misses(episodes)
    if not near_misses:
        return ""
    early = sum(not rose_late(episode, LAST_PART) for episode in near_misses)
    return (
        f" {early} of the {len(near_misses)} near misses had stopped improving: their best reward "
        f"came before the last {100 * LAST_PART:g} % of the steps."
    )


def _episode(outcomes: Outcomes, episode: Mapping[str, Any]) -> tuple[object, ...]:
    how = outcome(episode["success"])
    return (
        Start.of_record(episode).name,
        f"{how}: {outcomes.kind(episode).name}" if how == "failure" else how,
        thousandths(episode["max_reward"]),
        episode["best_step"],
        episode["length"],
        f"[{episode['video'].rpartition('/')[2]}]({episode['video']})",
    )
