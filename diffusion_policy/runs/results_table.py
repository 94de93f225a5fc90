"""``RESULTS.md``: all recorded runs in one table, beside what was published."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from diffusion_policy.env_runner.report import INFO_FILE
from diffusion_policy.runs.published import SETTINGS, Figure, Measure, Setting
from diffusion_policy.runs.result import Result
from diffusion_policy.runs.seeds import SeedGroup, group_by_seed
from diffusion_policy.util.errors import UserError

_HEADER = (
    "setting",
    "run",
    "training",
    "success rate: ours",
    "published",
    "mean max reward: ours",
    "published",
    "reached?",
)
_TEXT = """# Results

PushT, ours beside published. Each run of ours is the last checkpoint of one training, scored on
the starts of seeds 100000 to 100999 unless its row says otherwise. Brackets hold 95 % intervals:
over the episodes of a single run, and over seeds (Student's t) where several were trained, whose
mean then stands before them.
Our figures are rounded down, and a published one is reached only if ours, unrounded, is no smaller;
*clearly*, if the lower end of our interval is above it. The published ones came without intervals.
The page of a run tells command, commit and machine, and what to bear in mind beside the published
figure.

{table}

Published for DOT: 1000 episodes, after a million steps of 24 samples; its report also tells of one
checkpoint on keypoints with some 94 %. For Diffusion Policy: means over 3 seeds and 50 starts,
keypoints after 4,500 epochs of batch 256; no success rates. All of it comes from the human
demonstrations and episodes of 300 steps: runs on others, and those scored in another way, have
nothing beside them.

This page is written by `python -m diffusion_policy.scripts.results_table` from `docs/results/`.
"""


def results_page(root: Path) -> str:
    """The text of ``RESULTS.md``.

    Args:
        root: of the repository.

    Raises:
        UserError: there are no results, or a folder of them does not tell how its run came about.
    """
    results = [Result.read(folder) for folder in recorded(root)]
    return _TEXT.format(table=markdown_table(_HEADER, _rows(results)))


def recorded(root: Path) -> list[Path]:
    """The folders of results.

    Args:
        root: of the repository.

    Raises:
        UserError: there are none.
    """
    infos = (root / "docs/results").glob(f"*/{INFO_FILE}")
    # Hidden ones are what an interrupted record_result left.
    folders = sorted(path.parent for path in infos if not path.parent.name.startswith("."))
    if not folders:
        raise UserError(
            f"{(root / 'docs/results').resolve()} holds no recorded run; run this in the root of "
            "the repository, after diffusion_policy.scripts.record_result"
        )
    return folders


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as GitHub draws it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _rows(results: Sequence[Result]) -> Iterable[Sequence[str]]:
    left = list(results)
    for setting in SETTINGS:
        ours = [result for result in left if _compares(result, setting)]
        left = [result for result in left if result not in ours]
        for group in group_by_seed(ours):
            yield _row(setting.name, setting.figures, group)
        if not ours:
            yield _row(setting.name, setting.figures, None)
    for group in group_by_seed(left):
        first = group.results[0]
        named = [setting.name for setting in SETTINGS if _is_of(first, setting)]
        remarks = [(named or [first.cfg.name])[0], f"{first.demonstrations} demonstrations"]
        if not first.scored_as_published:
            remarks.append("scored otherwise")
        yield _row(", ".join(remarks), (), group)


def _is_of(result: Result, setting: Setting) -> bool:
    return result.cfg.name in setting.configs and result.sees_pictures == setting.pictures


def _compares(result: Result, setting: Setting) -> bool:
    """Whether the published figures of ``setting`` may stand beside ``result``."""
    return (
        _is_of(result, setting) and result.demonstrations == "human" and result.scored_as_published
    )


def _row(name: str, figures: Sequence[Figure], ours: SeedGroup | None) -> Sequence[str]:
    run, training, success, reward = "none yet", "", "", ""
    if ours is not None:
        run = ", ".join(
            f"[{result.name}](docs/results/{result.name}/README.md)" for result in ours.results
        )
        training = ours.effort
        success, reward = ours.text("success_rate"), ours.text("mean_max_reward")
    published_success, published_reward = (
        _published(figures, measure) for measure in ("success_rate", "mean_max_reward")
    )
    return (
        name,
        run,
        training,
        success,
        published_success,
        reward,
        published_reward,
        _verdict(figures, ours),
    )


def _published(figures: Iterable[Figure], measure: Measure) -> str:
    return ", ".join(
        f"{_shown(figure)} ({figure.of})" if figure.of else _shown(figure)
        for figure in figures
        if figure.measure == measure
    )


def _shown(figure: Figure) -> str:
    return (
        f"{100 * figure.value:.1f} %" if figure.measure == "success_rate" else f"{figure.value:g}"
    )


def _verdict(figures: Sequence[Figure], ours: SeedGroup | None) -> str:
    if not figures:
        return "nothing published"
    if ours is None:
        return "not tried"
    reached = [ours.mean(figure.measure) >= figure.value for figure in figures]
    if all(reached):
        above = all(ours.interval(figure.measure)[0] > figure.value for figure in figures)
        return "**clearly reached**" if above else "**reached**"
    if not any(reached):
        return "not reached"
    missed = (figure for figure, done in zip(figures, reached, strict=True) if not done)
    return f"partly: not {', '.join(map(_shown, missed))}"
