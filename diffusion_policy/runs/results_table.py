"""``RESULTS.md``: all runs on record in one table, beside the published scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from diffusion_policy.env_runner.report import INFO_FILE
from diffusion_policy.runs.published import Figure, Measure, Setting, benchmark
from diffusion_policy.runs.result import Result
from diffusion_policy.runs.seeds import SeedGroup, group_by_seed
from diffusion_policy.util.errors import UserError
from diffusion_policy.util.tables import markdown_table

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
_OTHER_HEADER = ("task", "config", "run", "training", "success rate", "mean max reward")
_OTHERS = """
## Other tasks

{table}

These scores stand beside no published ones. The page of each run tells its starts.
"""
_TEXT = """# Results

{benchmark}: our scores beside published ones. Each of our runs is the last checkpoint of one
training. It is scored on the episodes of seeds {seeds[0]} to {seeds[1]} unless its row says
otherwise. Brackets hold 95 % intervals: over the episodes of a single run, or over seeds (Student's
t) where we trained several; the number before the brackets is then their mean.
Our figures are rounded down. A published figure is *reached* if ours, before rounding, is not
smaller. It is *clearly* reached if the lower end of our interval is above it. The published figures
came without intervals. The page of each run gives its commands, commit and machine, and how far it
can be compared with the published figure.

{table}

{notes}{others}
This page is written by `python -m diffusion_policy.scripts.results_table` from `docs/results/`.
"""


def results_page(root: Path) -> str:
    """Return the text of ``RESULTS.md``.

    Args:
        root: root of the repository.

    Raises:
        UserError: there are no results, or a folder of results has no launches.json.
    """
    results = [Result.read(folder) for folder in recorded(root)]
    ours = [result for result in results if result.is_of_benchmark]
    others = other_rows([result for result in results if not result.is_of_benchmark])
    return _TEXT.format(
        benchmark=benchmark().name,
        seeds=benchmark().protocol["seeds"],
        notes=benchmark().notes,
        table=markdown_table(_HEADER, rows(ours)),
        others=_OTHERS.format(table=markdown_table(_OTHER_HEADER, others)) if others else "",
    )


def recorded(root: Path) -> list[Path]:
    """Return the folders of results.

    Args:
        root: root of the repository.

    Raises:
        UserError: there are none.
    """
    infos = (root / "docs/results").glob(f"*/{INFO_FILE}")
    # An interrupted record_result leaves a hidden folder.
    folders = sorted(path.parent for path in infos if not path.parent.name.startswith("."))
    if not folders:
        raise UserError(
            f"{(root / 'docs/results').resolve()} holds no recorded run; run this in the root of "
            "the repository, after diffusion_policy.scripts.record_result"
        )
    return folders


def rows(results: Sequence[Result]) -> Iterator[Sequence[str]]:
    """The rows of the benchmark: first what compares with published scores, then the rest."""
    left = list(results)
    settings = benchmark().settings
    for setting in settings:
        ours = [result for result in left if _compares(result, setting)]
        left = [result for result in left if result not in ours]
        for group in group_by_seed(ours):
            yield _row(setting.name, setting.figures, group)
        if not ours:
            yield _row(setting.name, setting.figures, None)
    for group in group_by_seed(left):
        first = group.results[0]
        named = [setting.name for setting in settings if _is_of(first, setting)]
        remarks = [(named or [first.cfg.name])[0], f"{first.demonstrations} demonstrations"]
        if not first.scored_as_published:
            remarks.append("scored otherwise")
        yield _row(", ".join(remarks), (), group)


def other_rows(results: Sequence[Result]) -> list[Sequence[str]]:
    """The rows of runs in other tasks, task by task."""
    return [
        (group.results[0].task, group.results[0].cfg.name, *_ours(group))
        for group in sorted(group_by_seed(results), key=lambda group: group.results[0].task)
    ]


def _is_of(result: Result, setting: Setting) -> bool:
    return result.cfg.name in setting.configs and result.observes == setting.observes


def _compares(result: Result, setting: Setting) -> bool:
    """Whether the published figures of ``setting`` may stand beside ``result``."""
    demonstrations = benchmark().protocol["demonstrations"]
    return (
        _is_of(result, setting)
        and result.demonstrations == demonstrations
        and result.scored_as_published
    )


def _row(name: str, figures: Sequence[Figure], ours: SeedGroup | None) -> Sequence[str]:
    run, training, success, reward = ("none yet", "", "", "") if ours is None else _ours(ours)
    return (
        name,
        run,
        training,
        success,
        _published(figures, "success_rate"),
        reward,
        _published(figures, "mean_max_reward"),
        _verdict(figures, ours),
    )


def _ours(group: SeedGroup) -> tuple[str, str, str, str]:
    """Links to the runs, their training, and their two scores."""
    links = [f"[{result.name}](docs/results/{result.name}/README.md)" for result in group.results]
    scores = group.text("success_rate"), group.text("mean_max_reward")
    return ", ".join(links), group.effort, *scores


def _published(figures: Iterable[Figure], measure: Measure) -> str:
    return ", ".join(
        f"{_shown(figure)} ({figure.of})" if figure.of else _shown(figure)
        for figure in figures
        if figure.measure == measure
    )


def _shown(figure: Figure) -> str:
    if figure.measure == "success_rate":
        return f"{100 * figure.value:.1f} %"
    return f"{figure.value:g}"


def _verdict(figures: Sequence[Figure], ours: SeedGroup | None) -> str:
    if not figures:
        return "nothing published"
    if ours is None:
        return "not tried"
    # A rate that is not known is NaN and reaches nothing.
    missed = [figure for figure in figures if not ours.mean(figure.measure) >= figure.value]
    if not missed:
        above = all(ours.interval(figure.measure)[0] > figure.value for figure in figures)
        return "**clearly reached**" if above else "**reached**"
    if len(missed) == len(figures):
        return "not reached"
    return f"partly: not {', '.join(map(_shown, missed))}"
